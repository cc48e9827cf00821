"""The toolkit as one object: networks are loaded once, when first needed, and each capability is one method.

Photos go in and come out as PIL pictures, aligned faces as img [N, 3, H, W], codes as `Inversion`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import PIL.Image
import torch
from PIL.Image import Image
from torch import Tensor, nn

from mien.app.artists import find_artist
from mien.app.settings import DEFAULT_NETWORK, DETECTOR, DEVICES, FACE_NET, PRECISIONS
from mien.edits.blend import MIN_COSINE
from mien.edits.directions import DirectionSet, load_directions
from mien.edits.drag import DragConfig, Dragged, Points, drag
from mien.edits.expression import MOVING, ExpressionConfig, along, express, read, wanted_of
from mien.edits.lab_swap import lab_swap
from mien.edits.looks import Look, find_look
from mien.edits.spare import face_mask
from mien.edits.style import decode, restyle
from mien.edits.style_settings import StyleConfig
from mien.edits.stylize import Stylized, stylize
from mien.edits.swap import Swap, SwapConfig, SwapMeans, attribute_moves, swap
from mien.edits.toonify import Artist, ToonConfig, draw_whole, toonify
from mien.edits.video import ClipReport, VideoConfig, edit_clip
from mien.edits.walk import walk
from mien.errors import InputError, NoFaceError, WeightsError
from mien.faces.align import Crop, align, paste_back, paste_change
from mien.faces.detect import Face, detect, load_detector
from mien.images import resize, save_png, to_pil, to_tensor
from mien.inversion.code import PERSON_SUFFIX, Inversion, load_inversion, picture_digest, save_inversion
from mien.inversion.invert import Method, RowMove, find_method, invert
from mien.inversion.starts import Means
from mien.judges import SHIPPED, identity_judge
from mien.latents import LatentStats, latent_stats, mix, sample_ws, synthesize
from mien.marks import Origin
from mien.nets.detector import Detector
from mien.nets.encoder import Encoder, look
from mien.nets.features import EXPRESSIONS, FaceNet
from mien.nets.generator import Generator
from mien.nets.precision import exact_float32
from mien.report import Sink, ignore
from mien.weights.load import bundled_names, find_weights, load_generator, load_net, read_recipe, weights_digest

__all__ = ["Studio", "companion"]

PREVIEW_PX = 128

Way = TypeVar("Way", bound=Callable[..., Any])


def companion(network: Path, kind: str) -> Path:
    """Return where the `kind` (encoder, directions) that belongs to a generator's file is looked for: beside it.

    >>> companion(Path("bundle/faces-64.safetensors"), "encoder").as_posix()
    'bundle/encoder-faces-64.safetensors'
    """
    return network.with_name(f"{kind}-{network.stem}.safetensors")


def preview(img: Tensor) -> Tensor:
    """Shrink img [1, 3, H, W] to at most 128 px, uint8 [3, h, w]."""
    small = to_pil(resize(img, min(PREVIEW_PX, img.shape[-1])))[0]
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def pick_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is a CUDA GPU where there is one, else the CPU.

    Raises:
        InputError: an unknown name, or a device that this machine or this torch does not have.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if present["cuda"] else "cpu")
    kind = name.partition(":")[0]
    if kind not in present:
        raise InputError(f"no device named {name!r}", hint=f"known: {', '.join(DEVICES)}")
    if not present[kind]:
        raise InputError(f"this installation has no device {name}", hint="use --device cpu")
    try:
        return torch.device(name)
    except RuntimeError as err:
        raise InputError(f"no device named {name!r}", hint="write for example cuda:1") from err


def _in_precision(method: Way) -> Way:
    """Let a method of the studio compute in float32 exactly, unless the studio was made for another precision."""

    @wraps(method)
    def run(self: Studio, *args: Any, **kwargs: Any) -> Any:
        with exact_float32(self.dtype == torch.float32):
            return method(self, *args, **kwargs)

    return cast(Way, run)


class Studio:
    """Everything that mien does with faces.

    Args:
        network: a generator's file or bundled name; its encoder and directions are looked for beside it.
        device: one of `DEVICES`.
        precision: of the generator while it is optimised through and while it invents people: fp32 is exact, bf16 an
            opt-in to speed.
        seed: of everything random.
        face_net: name or file of the face network for perceptual and identity terms; None compares pixels alone.
    """

    def __init__(
        self,
        network: str | Path = DEFAULT_NETWORK,
        *,
        device: str = "auto",
        precision: str = "fp32",
        seed: int = 0,
        face_net: str | Path | None = FACE_NET,
    ) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"no precision named {precision!r}", hint=f"known: {', '.join(PRECISIONS)}")
        self.device = pick_device(device)
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.precision, self.seed, self._network, self._face_net = precision, seed, network, face_net

    # ---- Networks ---------------------------------------------------------------------------------------------------

    @cached_property
    def network(self) -> Path:
        """The generator's file.

        Raises:
            MissingWeightsError: there is none; who only looks for faces never asks.
        """
        return find_weights(self._network)

    @cached_property
    def G(self) -> Generator:
        """The generator."""
        G = load_generator(self.network)
        assert isinstance(G, nn.Module)
        G.to(self.device)
        return G

    @cached_property
    def digest(self) -> str:
        """The sha256 of the generator's file, which codes, encoders and directions carry."""
        return weights_digest(self.network)

    @cached_property
    def detector(self) -> Detector:
        """The face detector."""
        return load_detector(DETECTOR).to(self.device)

    @cached_property
    def face_net(self) -> FaceNet | None:
        """The face network, or None where the studio was made without."""
        return None if self._face_net is None else load_net(self._face_net, FaceNet).to(self.device)

    @cached_property
    def encoder(self) -> Encoder | None:
        """The generator's encoder, or None where none lies beside it.

        Raises:
            WeightsError: the one beside it was trained for other weights.
        """
        path = companion(self.network, "encoder")
        if not path.is_file():
            return None
        if read_recipe(path).provenance.get("network") != self.digest:
            hint = "train it again: mien train encoder"
            raise WeightsError(f"{path.name} was trained for another generator than {self.network.name}", hint=hint)
        return load_net(path, Encoder).to(self.device)

    @cached_property
    def directions(self) -> DirectionSet:
        """The generator's directions; an empty set where none lie beside it.

        Raises:
            WeightsError: those beside it were found in other weights.
        """
        path = companion(self.network, "directions")
        if not path.is_file():
            return DirectionSet({})
        found = load_directions(path)
        if found.network != self.digest:
            hint = "find them again: mien train directions"
            raise WeightsError(f"{path.name} was found in another generator than {self.network.name}", hint=hint)
        return found

    @cached_property
    def stats(self) -> LatentStats:
        """Where the generator's codes lie."""
        return latent_stats(self.G)

    def weights(self) -> dict[str, str]:
        """Name => sha256 of every file of weights that the studio uses, for reports."""
        paths = [self.network, companion(self.network, "encoder"), companion(self.network, "directions")]
        named = [DETECTOR, *([] if self._face_net is None else [str(self._face_net)])]
        paths += [find_weights(name) for name in named if name in bundled_names()]
        return {path.name: weights_digest(path) for path in paths if path.is_file()}

    # ---- Photos -----------------------------------------------------------------------------------------------------

    @_in_precision
    def detect(self, photo: Image) -> list[Face]:
        """Find every face, largest first; empty where there is none."""
        return detect(self.detector, photo)

    def align(
        self, photo: Image, *, size_px: int | None = None, source: str = "", face: int | None = None
    ) -> list[Crop]:
        """Cut the faces out of `photo`, largest first, at `size_px` (by default the network's).

        Args:
            photo: RGB.
            size_px: side of the crops.
            source: the photo's name, for the record.
            face: only the face of this number.

        Raises:
            NoFaceError: no face, or none of that number.
        """
        faces = self.detect(photo)
        if not faces:
            raise NoFaceError(f"no face found in {source or 'the photo'}", hint="try a larger or more frontal photo")
        if face is not None:
            if not 0 <= face < len(faces):
                found = f"{source or 'the photo'} shows {len(faces)} face{'s' * (len(faces) > 1)}"
                raise NoFaceError(f"{found}, none has number {face}", hint="they are numbered from 0, largest first")
            faces = [faces[face]]
        return [align(photo, f, size_px or self.G.img_resolution, source=source) for f in faces]

    def paste(self, photo: Image, crop: Crop, edited: Inversion, unedited: Inversion) -> Image:
        """Change the face in its photo as its render changed; what the generator could not show stays the photo's.

        Args:
            photo: that the crop was cut from; other faces of it may have been changed.
            crop: where the face is.
            edited: its code after the edit.
            unedited: its code before.
        """
        return self.paste_render(photo, crop, self.render(edited), unedited)

    def paste_render(self, photo: Image, crop: Crop, img: Tensor, unedited: Inversion) -> Image:
        """Change the face in its photo as img [1, 3, H, W] differs from the render of its code; see `paste`."""
        return paste_change(photo, crop, img - self.render(unedited))

    def aligned(self, image: Image, *, source: str = "") -> Tensor:
        """Turn a picture that is an FFHQ crop already into img [1, 3, H, W] of the generator's side.

        Raises:
            InputError: it is not square.
        """
        if image.width != image.height:
            size = f"{image.width}x{image.height} px"
            raise InputError(f"{source or 'the picture'} is {size}, no aligned crop", hint="leave out --aligned")
        return resize(to_tensor(image), self.G.img_resolution).clamp(-1, 1)

    def look(self, name: str = "auto", *, on_step: Sink = ignore) -> Look:
        """Return whose maps style transfer compares; see `find_look`."""
        return find_look(name, device=self.device, on_step=on_step)

    @_in_precision
    def stylize(
        self, photo: Image, styles: Sequence[Image], look: Look, config: StyleConfig, **options: Any
    ) -> Stylized:
        """Paint a photo in the style of pictures; `config.spare` of its faces stays. `options` are of `stylize`."""
        tensors = [to_tensor(image).to(self.device) for image in (photo, *styles)]
        mask = face_mask(photo.size, self.detect(photo)).to(self.device) if config.spare else None
        return stylize(tensors[0], tensors[1:], look, config, spare_mask=mask, **options)

    def artist(self, style: str) -> Artist:
        """Return who draws in a style: a network's name or file; see `find_artist`."""
        return find_artist(self, style)

    def toonify(
        self,
        photo: Image,
        artist: Artist,
        config: ToonConfig | None = None,
        *,
        source: str = "",
        face: int | None = None,
    ) -> Image:
        """Draw the faces of a photo, all in one pass, and put them back; a whole picture may show none.

        Raises:
            NoFaceError: no face, or none of that number.
        """
        if config is not None and config.is_whole and face is None and not self.detect(photo):
            return draw_whole(artist, photo, config)
        return toonify(photo, self.align(photo, size_px=artist.size_px, source=source, face=face), artist, config)

    # ---- Codes ------------------------------------------------------------------------------------------------------

    @_in_precision
    def invert(
        self, img: Tensor, *, method: str = "optimize", num_steps: int | None = None, on_step: Sink = ignore
    ) -> list[Inversion]:
        """Find the codes of aligned faces.

        Args:
            img: [N, 3, H, W] in [-1, 1] of the generator's side.
            method: a name that `find_method` knows: `encoder` (one look), `optimize`, `pti`, `hybrid`, `nearest+w`...
            num_steps: most steps of the last refinement, by default its own.
            on_step: hears of every step.

        Raises:
            InputError: an unknown method.
            WeightsError: the encoder is asked for and the generator has none, or one of other weights.
        """
        found = invert(self.G, img.to(self.device), self._method(method, num_steps), self._means(), on_step=on_step)
        return [
            replace(inversion, network=self.digest, method=method, preview=preview(self.render(inversion)))
            for inversion in found
        ]

    def _means(self) -> Means:
        """What inversion may use."""
        return Means(
            stats=self.stats,
            encode=self.encode if companion(self.network, "encoder").is_file() else None,
            face_model=self.face_net,
            dtype=self.dtype,
            seed=self.seed,
        )

    def _method(self, name: str, num_steps: int | None) -> Method:
        method = find_method(name).with_seed(self.seed)
        return method if num_steps is None else method.with_steps(num_steps)

    def settings(self, method: str, num_steps: int | None = None) -> dict[str, Any]:
        """Return all settings of a method of inversion, as a code's `config` and recipes hold them."""
        return dict(json.loads(json.dumps(self._method(method, num_steps).record())))

    def save(self, inversion: Inversion, out: Path) -> None:
        """Write a code beside `out`, a PNG: its render as `out`, whatever changes the generator as `.mien`.

        A `.mien` of another code that lies there is removed, as the rest is replaced.
        The render is written last: where it is, the rest is whole.
        """
        if inversion.changes:
            save_inversion(inversion, out.with_suffix(PERSON_SUFFIX))
        else:
            out.with_suffix(PERSON_SUFFIX).unlink(missing_ok=True)
        save_inversion(inversion.code_alone(), out.with_suffix(".safetensors"))
        save_png(self.picture(inversion), out, Origin.INVENTED)

    def finished(self, out: Path, img: Tensor, *, method: str = "optimize", num_steps: int | None = None) -> bool:
        """Say whether `save` has written to `out` what `invert` would find of img [1, 3, H, W], so that work can go on.

        Anything else that lies there, another picture's code or one of other settings, is not it.
        """
        kept = next((p for s in (PERSON_SUFFIX, ".safetensors") if (p := out.with_suffix(s)).is_file()), None)
        if kept is None or not out.is_file():
            return False
        try:
            found = load_inversion(kept)
        except InputError:
            return False
        wanted = (self.digest, method, self.settings(method, num_steps))
        return (found.network, found.method, found.config) == wanted and found.picture == picture_digest(img)

    @_in_precision
    def encode(self, img: Tensor) -> Tensor:
        """See ws [N, num_ws, w_dim] in img [N, 3, H, W], without optimising.

        Raises:
            WeightsError: the generator has no encoder.
        """
        if self.encoder is None:
            hint = "use --method optimize, or train one: mien train encoder"
            raise WeightsError(f"{self.network.stem} has no encoder", hint=hint)
        return look(self.encoder, self.G, img.to(self.device))

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Look at many pictures: ws [N, num_ws, w_dim] of uint8 [N, 3, H, W].

        Raises:
            WeightsError: the generator has no encoder.
        """
        return torch.cat([self.encode(some.float() / 127.5 - 1) for some in pixels.split(64)])

    @_in_precision
    def seed_code(self, seed: int, *, psi: float = 0.7, class_idx: int | None = None) -> Inversion:
        """Invent a person: the code of a seed, of a class where the generator has classes."""
        ws = sample_ws(self.G, [seed], truncation_psi=psi, class_idx=class_idx)[0]
        return Inversion(ws=ws, network=self.digest, method="seed", config={"seed": seed, "psi": psi})

    def edit(self, inversion: Inversion, strengths: Mapping[str, float]) -> Inversion:
        """Move a code along directions, in standard deviations each.

        Raises:
            InputError: an unknown direction, or the code of another generator.
        """
        self.check(inversion)
        return self.directions.edit(inversion, strengths)

    @_in_precision
    def drag(
        self,
        inversion: Inversion,
        handles: Points,
        goals: Points,
        *,
        mask: Tensor | None = None,
        config: DragConfig | None = None,
        on_step: Sink = ignore,
    ) -> Dragged:
        """Move points [K, 2] px of a face's render to their goals; see `mien.edits.drag`.

        Raises:
            InputError: points outside of the render, or the code of another generator.
        """
        self.check(inversion)
        return drag(self.G, inversion, handles, goals, stats=self.stats, mask=mask, config=config, on_step=on_step)

    @_in_precision
    def edit_clip(
        self,
        source: Path,
        out: Path,
        strengths: Mapping[str, float],
        *,
        config: VideoConfig | None = None,
        person: int | None = None,
        on_step: Sink = ignore,
    ) -> ClipReport:
        """Move the people of a clip along directions and write it as `out`; see `mien.edits.video.edit_clip`.

        Raises:
            InputError: an unknown direction, no clip, or nobody in it.
        """
        return edit_clip(
            source,
            out,
            G=self.G,
            means=self._means(),
            find=self.detect,
            edit=lambda code: self.edit(code, strengths),
            config=config,
            person=person,
            on_step=on_step,
        )

    def mix(self, inversion: Inversion, style: Inversion, layers: Iterable[int]) -> Inversion:
        """Take the rows `layers` from another code.

        Raises:
            InputError: a row that is not there, or the code of another generator.
        """
        self.check(inversion)
        self.check(style)
        return inversion.with_ws(mix(inversion.ws[None].cpu(), style.ws[None].cpu(), layers)[0])

    def restyle(self, inversion: Inversion, style: Inversion, layers: Iterable[int], psi: float = 0.0) -> Inversion:
        """Take the rows `layers` from a style's code, with the share `psi` of the face's own kept; see `mix`."""
        self.check(inversion)
        self.check(style)
        return inversion.with_ws(restyle(inversion.ws[None].cpu(), style.ws[None].cpu(), layers, psi)[0])

    @_in_precision
    def decode(self, inversion: Inversion, by: Generator, *, min_cosine: float | None = MIN_COSINE) -> Tensor:
        """Render a code as img [1, 3, H, W] by a generator that is related to the studio's; see `style.decode`."""
        self.check(inversion)
        return decode(inversion, self.G, by, min_cosine=min_cosine)

    def move_rows(self, inversion: Inversion, direction: str, move: RowMove) -> Inversion:
        """Move some rows along a direction as a published preset says; see `expression.along`."""
        self.check(inversion)
        return inversion.with_ws(along(inversion.ws[None], self.directions[direction], move)[0])

    def _reader(self) -> FaceNet:
        if self.face_net is None:
            raise InputError("nothing reads expressions: the studio has no face network", hint="give it one")
        return self.face_net

    @_in_precision
    def expression(self, img: Tensor) -> dict[str, float]:
        """Read the expression of img [1, 3, H, H]: blendshape => 0..1, without where the eyes look."""
        with torch.no_grad():
            shown = read(self._reader(), img.to(self.device)).expression[0]
        return {EXPRESSIONS[i]: float(shown[i]) for i in MOVING}

    @_in_precision
    def express(
        self,
        inversion: Inversion,
        shown: Mapping[str, float],
        strength: float = 1.0,
        *,
        config: ExpressionConfig | None = None,
        on_step: Sink = ignore,
    ) -> Inversion:
        """Give a face the expression `shown`, blendshape => 0..1, where a name without its side is both sides.

        Raises:
            InputError: an unknown blendshape, or the code of another generator.
        """
        with torch.no_grad():
            own = read(self._reader(), self.render(inversion)).expression
        options: dict[str, Any] = dict(face_net=self._reader(), stats=self.stats, config=config, on_step=on_step)
        return express(self.G, [inversion], wanted_of(own, shown, strength), **options)[0]

    @cached_property
    def swap_means(self) -> SwapMeans:
        """How faces move, and who says whose face it is: ArcFace where its weights are in the cache, else ours."""
        judge = identity_judge(device=self.device)
        describe = None if judge.name == SHIPPED else judge.describe
        return SwapMeans(self._reader(), attribute_moves(self.G, self._reader()), self.stats, describe)

    @_in_precision
    def swap(
        self,
        sources: Sequence[Inversion],
        source_img: Tensor,
        targets: Sequence[Inversion],
        target_img: Tensor,
        *,
        config: SwapConfig | None = None,
        on_step: Sink = ignore,
    ) -> list[Swap]:
        """Put one person, by one or more photos, on each of N targets; codes are best by `editable`. See `edits.swap`.

        Raises:
            InputError: not one code for each picture, or codes of another generator.
        """
        for code in (*sources, *targets):
            self.check(code)
        options: dict[str, Any] = dict(means=self.swap_means, config=config, on_step=on_step)
        found = swap(self.G, sources, source_img.to(self.device), targets, target_img.to(self.device), **options)
        return [replace(one, code=replace(one.code, network=self.digest, method="swap")) for one in found]

    @_in_precision
    def lab_swap(
        self, source_img: Tensor, targets: Sequence[Inversion], target_img: Tensor, *, on_step: Sink = ignore
    ) -> list[Swap]:
        """Swap as a face lab does, by the preset `lab-swap`. See `edits.lab_swap`."""
        given, target_img = source_img.to(self.device), target_img.to(self.device)
        return lab_swap(self.G, given, targets, target_img, means=self.swap_means, on_step=on_step)

    def paste_swap(self, photo: Image, crop: Crop, swapped: Swap) -> Image:
        """Put a swapped face into its photo; what lies outside of its mask stays as it is, byte for byte."""
        return paste_back(photo, crop, swapped.img, within=swapped.within)

    def check(self, inversion: Inversion) -> None:
        """Refuse the code of another generator.

        Raises:
            InputError: it is one.
        """
        if inversion.network not in ("", self.digest):
            hint = "give the --network that it was made with, or invert the photo again"
            raise InputError(f"the code was made with another generator than {self.network.stem}", hint=hint)

    @_in_precision
    def render(self, inversion: Inversion) -> Tensor:
        """Render a code as img [1, 3, H, W]."""
        self.check(inversion)
        return inversion.render(self.G)

    @_in_precision
    def generate(
        self,
        seeds: Sequence[int],
        *,
        psi: float = 0.7,
        noise_mode: str = "const",
        class_idx: int | None = None,
    ) -> list[Image]:
        """Invent people: a picture of the network's size for each seed.

        Args:
            seeds: one for each person.
            psi: truncation, 1 for all variety, 0 for the mean face.
            noise_mode: `const`, `random` (by the studio's seed and the person's) or `none`.
            class_idx: of a generator that has classes.
        """
        pictures = []
        for seed in seeds:
            ws = sample_ws(self.G, [seed], truncation_psi=psi, class_idx=class_idx)
            noise_seed = int(np.random.SeedSequence([self.seed, seed]).generate_state(1)[0])  # 32 bits: a CPU's all
            pictures += to_pil(synthesize(self.G, ws, noise_mode=noise_mode, seed=noise_seed, dtype=self.dtype))
        return pictures

    def style_table(
        self, rows: Sequence[Inversion], columns: Sequence[Inversion], layers: Sequence[int]
    ) -> list[list[Image]]:
        """Mix everyone of `rows` with `layers` of everyone of `columns`, who stand along the left and the upper edge.

        Source: Karras et al. 2019, Fig. 3, arXiv:1812.04948.
        """
        blank = PIL.Image.new("RGB", [self.G.img_resolution] * 2, "white")
        first = [blank, *map(self.picture, columns)]
        return [first] + [
            [self.picture(row), *(self.picture(self.mix(row, column, layers)) for column in columns)] for row in rows
        ]

    def walk(self, codes: Sequence[Inversion], num_frames: int) -> Iterator[Image]:
        """Render a smooth closed loop through people, picture by picture.

        Raises:
            InputError: nobody, or the code of another generator.
        """
        own_noise: Sequence[Tensor] = getattr(self.G.synthesis, "noise_maps", tuple)()
        return map(self.picture, walk(codes, num_frames, own_noise))

    def picture(self, inversion: Inversion) -> Image:
        """Render a code as a picture of the network's size."""
        return to_pil(self.render(inversion))[0]
