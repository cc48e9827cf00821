"""Clips edited by tiny networks: everything that is no face stays, people keep their codes and their own generator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import torch

from mien.edits.video import VIDEO_METHODS, VideoConfig, edit_clip, find_video_method
from mien.errors import Cancelled, InputError, NoFaceError
from mien.faces.detect import Face
from mien.inversion.code import Inversion
from mien.inversion.project import ProjectConfig
from mien.inversion.starts import Means
from mien.inversion.tune import TuneConfig
from mien.latents import LatentStats, latent_stats
from mien.nets.stylegan2 import Generator
from mien.report import Step
from mien.video import clip_frames, save_mp4

pytestmark = pytest.mark.usefixtures("one_thread")
FIVE = np.array([[-20.0, -15], [20, -15], [0, 5], [-14, 25], [14, 25]])
SIZE, NUM, RADIUS = (200, 120), 12, 24
RED = (200, 60, 50)
QUICK = VideoConfig(
    first=ProjectConfig(num_steps=3, noise_lr=0.0),
    then=ProjectConfig(num_steps=1, noise_lr=0.0),
    tune=TuneConfig(num_steps=2, rank=2, locality_weight=0.0),
    num_keys=2,
)


@pytest.fixture(scope="module")
def stats(G: Generator) -> LatentStats:
    return latent_stats(G, num=300)


def disc_at(t: int) -> tuple[float, float] | None:
    """Where the face of picture t is: it walks to the right, and has gone at last."""
    return None if t >= NUM - 3 else (50.0 + 4 * t, 60.0)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    pytest.importorskip("av", reason="needs the extra video")
    frames = []
    for t in range(NUM):
        frame = PIL.Image.new("RGB", SIZE, (90, 120, 110))
        if (place := disc_at(t)) is not None:
            x, y = place
            PIL.ImageDraw.Draw(frame).ellipse([x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS], fill=RED)
        frames.append(frame)
    save_mp4(frames, tmp_path / "clip.mp4", fps=10)
    return tmp_path / "clip.mp4"


def find(image: PIL.Image.Image) -> list[Face]:
    """Find the red disc; now and then the finder sleeps."""
    pixels = np.asarray(image).astype(int)
    ys, xs = np.nonzero((pixels[..., 0] > 160) & (pixels[..., 1] < 95))
    if len(xs) < 20 or round(xs.mean()) in (66, 67):  # of the fifth picture
        return []
    centre = np.array([xs.mean(), ys.mean()]) + 0.5
    jitter = np.random.default_rng(round(centre[0])).normal(0, 0.7, (5, 2))
    return [Face(np.concatenate([centre - RADIUS, centre + RADIUS]), centre + jitter + FIVE * RADIUS / 40, 0.9)]


def brighter(code: Inversion) -> Inversion:
    return code.with_ws(code.ws + 1.5)


def frames_of(path: Path) -> np.ndarray:
    return np.stack([np.asarray(image).astype(int) for image in clip_frames(path)])


def test_faces_change_and_all_else_stays(clip: Path, tmp_path: Path, G: Generator, stats: LatentStats) -> None:
    steps: list[Step] = []
    state = {name: value.clone() for name, value in G.state_dict().items()}
    report = edit_clip(
        clip,
        tmp_path / "out.mp4",
        G=G,
        means=Means(stats=stats),
        find=find,
        edit=brighter,
        config=QUICK,
        on_step=steps.append,
    )
    before, after = frames_of(clip), frames_of(tmp_path / "out.mp4")
    assert report.num_frames == len(after) == len(before) == NUM
    (person,) = report.people
    assert (person.num_seen, person.num_changed) == (NUM - 4, NUM - 3)  # one picture is bridged
    assert person.jitter_px < person.raw_jitter_px / 2
    for t in range(NUM):
        change = np.abs(after[t] - before[t]).mean(-1)
        place = disc_at(t)
        if place is None:
            assert change.mean() < 1
        else:
            x = round(place[0])
            assert change[40:80, x - 20 : x + 20].mean() > 3, t
            assert change[:, x + 90 :].mean() < 1.5, t
    assert {step.stage for step in steps} == {"follow", "codes", "tune", "render"}
    assert all(torch.equal(value, G.state_dict()[name]) for name, value in state.items())


def test_an_edit_of_nothing_gives_the_clip(clip: Path, tmp_path: Path, G: Generator, stats: LatentStats) -> None:
    edit_clip(
        clip, tmp_path / "out.mp4", G=G, means=Means(stats=stats), find=find, edit=lambda code: code, config=QUICK
    )
    assert np.abs(frames_of(tmp_path / "out.mp4") - frames_of(clip)).mean() < 1.5


def test_a_code_starts_where_the_last_one_was(
    clip: Path, tmp_path: Path, G: Generator, stats: LatentStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[torch.Tensor] = []
    found: list[torch.Tensor] = []
    from mien.edits import video

    def project(*args: object, start: torch.Tensor, **kwargs: object) -> list[Inversion]:
        starts.append(start[0])
        found.append(start[0] + 1)
        return [Inversion(ws=found[-1])]

    monkeypatch.setattr(video, "project", project)
    config = replace(QUICK, tune=None)
    edit_clip(clip, tmp_path / "a.mp4", G=G, means=Means(stats=stats), find=find, edit=brighter, config=config)
    assert len(starts) == NUM - 4
    for before, start in zip(found, starts[1:], strict=False):
        assert torch.equal(start, before)


def test_the_face_network_tells_a_bridge_from_an_empty_place(
    clip: Path, tmp_path: Path, G: Generator, stats: LatentStats
) -> None:
    """Who is not there in a picture that would be bridged is not painted into it."""

    class Looks:
        def __call__(self, img: torch.Tensor) -> Looks:
            level = img.mean((2, 3))
            self.identity = torch.nn.functional.normalize(level - level.mean(1, keepdim=True), dim=1)
            self.maps: list[torch.Tensor] = []
            return self

    gone = [t for t in range(NUM - 3) if t == 4]
    frames = list(clip_frames(clip))
    for t in gone:
        frames[t] = PIL.Image.new("RGB", SIZE, (90, 120, 110))
    save_mp4(frames, clip, fps=10)
    config = replace(QUICK, first=None, then=None, tune=None)
    means = Means(stats=stats, face_model=Looks())
    report = edit_clip(clip, tmp_path / "o.mp4", G=G, means=means, find=find, edit=brighter, config=config)
    assert (report.people[0].num_seen, report.people[0].num_changed) == (NUM - 4, NUM - 4)
    assert np.abs(frames_of(tmp_path / "o.mp4")[4] - frames_of(clip)[4]).mean() < 1


def test_what_cannot_be_done_leaves_nothing(clip: Path, tmp_path: Path, G: Generator, stats: LatentStats) -> None:
    common = dict(G=G, means=Means(stats=stats), edit=brighter, config=QUICK)
    out = tmp_path / "out.mp4"
    with pytest.raises(NoFaceError, match=r"nobody is seen in clip\.mp4"):
        edit_clip(clip, out, find=lambda _image: [], **common)
    with pytest.raises(NoFaceError, match="shows 1 person, none has number 2"):
        edit_clip(clip, out, find=find, person=2, **common)

    def stop(step: Step) -> None:
        if step.stage == "render":
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        edit_clip(clip, out, find=find, on_step=stop, **common)
    assert list(tmp_path.iterdir()) == [clip]


def test_methods_have_names() -> None:
    assert set(VIDEO_METHODS) == {"encoder", "optimize", "pti"}
    with pytest.raises(InputError, match="no method for clips named 'hybrid'") as caught:
        find_video_method("hybrid")
    assert "encoder, optimize, pti" in caught.value.hint
    with pytest.raises(InputError, match="num_keys must be at least 1"):
        VideoConfig(num_keys=0)
    with pytest.raises(InputError, match="code_sigma"):
        VideoConfig(code_sigma=-1)
