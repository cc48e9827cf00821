"""Edit the people of a clip: follow them, find their codes from picture to picture, paste back the change of the face.

The clip is read three times and never held. First faces are followed and their quads steadied. Then codes are found,
each from the one before, so that they move as the face does, and are steadied too; one change of the weights, tuned on
a few pictures, makes the generator the person's own. At last every picture gets the difference that the edit makes.
What no generator shows, skin and light and whatever passes in front, stays the clip's own and moves as it did.

Source: Tzaban et al. 2022, "Stitch it in Time", Sec. 3, arXiv:2201.08361.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from mien.errors import InputError, NoFaceError
from mien.faces.align import align, crop_quad, ffhq_quad, is_in_photo, paste_change
from mien.faces.detect import Face
from mien.faces.track import FollowConfig, Follower, Track, bridged, jitter_px, smooth_quads, spans, steady
from mien.inversion.code import Inversion
from mien.inversion.objective import FaceModel, Target
from mien.inversion.personal import Changes, personal
from mien.inversion.project import ProjectConfig, project
from mien.inversion.starts import Means, start_codes
from mien.inversion.tune import TuneConfig, tune_together
from mien.nets.features import FRAME_PX
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore
from mien.video import clip_frames, clip_info, rewrite_clip

__all__ = [
    "VIDEO_METHODS",
    "ClipReport",
    "PersonReport",
    "VideoConfig",
    "edit_clip",
    "find_video_method",
    "follow_clip",
]

FIRST = ProjectConfig(num_steps=60, noise_lr=0.0)
THEN = ProjectConfig(num_steps=10, lr=0.03, noise_lr=0.0)
TUNE = TuneConfig()

Find = Callable[[Image], Sequence[Face]]
Edit = Callable[[Inversion], Inversion]


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Settings of `edit_clip`."""

    follow: FollowConfig = field(default_factory=FollowConfig)
    first: ProjectConfig | None = FIRST  # where a person comes in; None: the encoder's look alone
    then: ProjectConfig | None = THEN  # from picture to picture
    tune: TuneConfig | None = TUNE  # of the person's own generator; None: the one that is given
    num_keys: int = 5  # pictures that it is tuned on
    code_sigma: float = 1.0  # pictures, of the Gaussian over codes

    def __post_init__(self) -> None:
        if self.num_keys < 1:
            raise InputError(f"num_keys must be at least 1, got {self.num_keys}")
        if not 0 <= self.code_sigma < 1000:
            raise InputError(f"code_sigma must be from 0 to below 1000 pictures, got {self.code_sigma}")


VIDEO_METHODS: Mapping[str, VideoConfig] = {
    "encoder": VideoConfig(first=None, then=None, tune=None),
    "optimize": VideoConfig(tune=None),
    "pti": VideoConfig(),
}
"""Name => how codes of a clip are found."""


def find_video_method(name: str) -> VideoConfig:
    """Return the settings of that name.

    Raises:
        InputError: there are none.
    """
    if name not in VIDEO_METHODS:
        raise InputError(f"no method for clips named {name!r}", hint=f"known: {', '.join(VIDEO_METHODS)}")
    return VIDEO_METHODS[name]


@dataclass(frozen=True)
class PersonReport:
    """One person of a clip: pictures with the face seen, and changed; jitter of the quads before and after."""

    num_seen: int
    num_changed: int
    raw_jitter_px: float
    jitter_px: float


@dataclass(frozen=True)
class ClipReport:
    """What became of a clip; people as they are numbered, who is largest for longest first."""

    num_frames: int
    people: tuple[PersonReport, ...]


def _watched(frames: Iterator[Image], stage: str, total: int, on_step: Sink) -> Iterator[tuple[int, Image]]:
    """Number the pictures and tell of each."""
    for i, image in enumerate(frames):
        yield i, image
        on_step(Step(stage, i + 1, max(total, i + 1)))


def follow_clip(
    path: Path,
    find: Find,
    config: FollowConfig,
    *,
    face_model: FaceModel | None = None,
    device: torch.device,
    on_step: Sink = ignore,
) -> list[Track]:
    """Read a clip once and say who is where, who is largest for longest first.

    Args:
        path: any clip.
        find: a picture's faces.
        config: how faces are followed.
        face_model: knows people again, by crops of `FRAME_PX`,
        device: of it.
        on_step: hears of every picture.

    Raises:
        NoFaceError: nobody is seen in it.
    """
    follower = Follower(config)
    for i, image in _watched(clip_frames(path), "follow", clip_info(path).num_frames, on_step):
        faces = [face for face in find(image) if is_in_photo(ffhq_quad(face.landmarks), image.size)]
        looks = None
        if face_model is not None and faces:
            img = torch.cat([align(image, face, FRAME_PX).img for face in faces])
            with torch.no_grad():
                looks = list(face_model(img.to(device)).identity.double().cpu().numpy())
        follower.see(i, faces, looks)
    if not (tracks := follower.tracks()):
        raise NoFaceError(f"nobody is seen in {path.name}", hint="faces must be larger, or longer in the picture")
    return tracks


@dataclass(eq=False)
class _Role:
    """One person of the clip: where they are, and what has been found of them; by number of the picture."""

    track: Track
    quads: dict[int, NDArray[np.float64]]
    key_frames: tuple[int, ...]  # pictures that the generator is tuned on
    keys: dict[int, Tensor] = field(default_factory=dict)  # the crops [1, 3, H, W] of these
    codes: dict[int, Tensor] = field(default_factory=dict)  # [num_ws, w_dim]
    changes: Changes = field(default_factory=Changes)

    @staticmethod
    def of(track: Track, config: VideoConfig) -> _Role:
        seen = list(track.faces)
        picks = np.linspace(0, len(seen) - 1, min(config.num_keys, len(seen))).round().astype(int)
        return _Role(track, smooth_quads(track, config.follow), tuple(seen[i] for i in picks))

    def steady_codes(self, config: VideoConfig) -> None:
        """Bridge and smooth the codes as the quads are."""
        frames = self.codes
        codes: dict[int, Tensor] = {}
        for part in spans(frames, config.follow.max_gap):
            values = bridged(part, np.stack([frames[frame].numpy() for frame in part]))
            smooth = torch.from_numpy(steady(values, config.code_sigma)).float()
            codes |= dict(zip(range(part[0], part[-1] + 1), smooth, strict=True))
        self.codes = codes

    def is_in(self, frame: int, image: Image) -> bool:
        """Say whether the person is to be changed in a picture."""
        return frame in self.codes and frame in self.quads and is_in_photo(self.quads[frame], image.size)

    @property
    def report(self) -> PersonReport:
        raw = {frame: ffhq_quad(face.landmarks) for frame, face in self.track.faces.items()}
        changed = self.codes.keys() & self.quads.keys()
        return PersonReport(len(raw), len(changed), jitter_px(raw), jitter_px(self.quads))


@dataclass(frozen=True)
class _Finder:
    """Finds the code of a crop from that of the picture before."""

    G: Generator
    means: Means
    config: VideoConfig

    def __call__(self, img: Tensor, before: Tensor | None) -> Tensor:
        """Code [num_ws, w_dim] of img [1, 3, H, W]; `before` is the last one's, or None where the person comes in."""
        stage = self.config.first if before is None else self.config.then
        start = start_codes(self.G, img, "auto", self.means) if before is None or stage is None else before[None]
        if stage is None:
            return start[0].cpu()
        means, start = self.means, start.to(img.device)
        (found,) = project(
            self.G, img, config=stage, start=start, face_model=means.face_model, stats=means.stats, dtype=means.dtype
        )
        return found.ws.cpu()


def _is_hidden(track: Track, img: Tensor, find: _Finder) -> bool:
    """Say whether a crop [1, 3, H, W], where the detector saw nobody, does not show the person either."""
    if find.means.face_model is None:
        return False
    with torch.no_grad():
        identity = find.means.face_model(img).identity[0].double().cpu().numpy()
    likeness = track.likeness(identity)
    return likeness is not None and likeness < find.config.follow.hidden


def _find_codes(path: Path, roles: Sequence[_Role], find: _Finder, on_step: Sink) -> None:
    """Read the clip again and give every person the codes of the pictures that they were seen in."""
    size_px, device, gap = find.G.img_resolution, find.G.w_avg.device, find.config.follow.max_gap + 1
    for i, image in _watched(clip_frames(path), "codes", clip_info(path).num_frames, on_step):
        for role in roles:
            if i not in role.quads or not is_in_photo(role.quads[i], image.size):
                continue
            img = crop_quad(image, role.quads[i], size_px=size_px).img.to(device)
            if i not in role.track.faces:
                if _is_hidden(role.track, img, find):
                    del role.quads[i]
                continue
            last = next(reversed(role.codes), -gap - 1)
            role.codes[i] = find(img, role.codes[last] if i - last <= gap else None)
            if i in role.key_frames:
                role.keys[i] = img
    for role in roles:
        role.steady_codes(find.config)


def _tuned(G: Generator, role: _Role, means: Means, config: TuneConfig, on_step: Sink) -> Changes:
    """Tune one generator on the person's key pictures."""
    found = [Inversion(ws=role.codes[frame]) for frame in role.keys]
    target = Target.of(torch.cat(list(role.keys.values())), means.face_model)
    model, stats = means.face_model, means.stats
    return tune_together(G, target, found, config=config, face_model=model, stats=stats, on_step=on_step)[0].changes


class _Painter:
    """Puts the change of one person's face into pictures."""

    def __init__(self, G: Generator, role: _Role, edit: Edit) -> None:
        self.role, self.edit, self.device = role, edit, G.w_avg.device
        self.before = personal(G, role.changes)
        edited = edit(
            self._code(next(iter(role.codes)))
        ).changes  # what an edit does to weights does not hang on the code
        self.after = self.before if edited is role.changes else personal(G, edited)

    def _code(self, frame: int) -> Inversion:
        return Inversion(ws=self.role.codes[frame], changes=self.role.changes)

    @torch.no_grad()
    def __call__(self, frame: int, image: Image) -> Image:
        before = self._code(frame)
        renders = [
            net.synthesis(code.ws[None].to(self.device), noise_mode="const")
            for net, code in ((self.after, self.edit(before)), (self.before, before))
        ]
        crop = crop_quad(image, self.role.quads[frame], size_px=renders[0].shape[-1])
        return paste_change(image, crop, renders[0] - renders[1])


def edit_clip(
    source: Path,
    path: Path,
    *,
    G: Generator,
    means: Means,
    find: Find,
    edit: Edit,
    config: VideoConfig | None = None,
    person: int | None = None,
    on_step: Sink = ignore,
) -> ClipReport:
    """Edit the faces of a clip; pictures without a face, the clock and the sound stay as they are.

    Args:
        source: any clip.
        path: the clip to make or replace, whole or not at all.
        G: the generator; nothing of it is changed.
        means: what inversion may use: the encoder for starts, the face network to compare and to know people by.
        find: a picture's faces.
        edit: what happens to a person's code and to what is the person's own of the generator.
        config: settings, by default those of `pti`.
        person: only the one of this number, 0 who is largest for longest; by default everybody.
        on_step: hears of every picture in the stages `follow`, `codes` and `render`, and of every step of `tune`.

    Raises:
        InputError: no such clip, or no pictures in it.
        UnsupportedFileError: it is no video, too large, or damaged.
        NoFaceError: nobody is seen in it, or nobody of that number.
        MissingExtraError: the extra `video` is not installed.
        MienError: the clip cannot be written.
    """
    config = config or VIDEO_METHODS["pti"]
    means = replace(means, stats=means.stats.to(G.w_avg.device))
    device = means.stats.w_avg.device
    tracks = follow_clip(source, find, config.follow, face_model=means.face_model, device=device, on_step=on_step)
    if person is not None and not 0 <= person < len(tracks):
        found = f"{source.name} shows {len(tracks)} {'person' if len(tracks) == 1 else 'people'}"
        raise NoFaceError(f"{found}, none has number {person}", hint="they are numbered from 0, the largest first")
    roles = [_Role.of(track, config) for track in (tracks if person is None else tracks[person : person + 1])]
    _find_codes(source, roles, _Finder(G, means, config), on_step)
    roles = [role for role in roles if role.codes]
    if config.tune is not None:
        for role in roles:
            role.changes = _tuned(G, role, means, config.tune, on_step)
    painters = [_Painter(G, role, edit) for role in roles]
    total = clip_info(source).num_frames

    def change(frame: int, image: Image) -> Image | None:
        able = [painter for painter in painters if painter.role.is_in(frame, image)]
        for painter in able:
            image = painter(frame, image)
        on_step(Step("render", frame + 1, max(total, frame + 1)))
        return image if able else None

    num_frames = rewrite_clip(source, path, change)
    return ClipReport(num_frames, tuple(role.report for role in roles))
