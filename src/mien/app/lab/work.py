"""A face lab at work: its people and networks, what it shows, and what it keeps so that it can go on.

What takes long is kept beside the report with a record of what it was made of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from mien.app.evaluate.inversion import EVAL_PX, Subject, measure
from mien.app.figures.page import slug
from mien.app.lab.people import Photo, Someone
from mien.app.studio import Studio
from mien.atomic import write_text
from mien.errors import InputError
from mien.images import resize, to_pil
from mien.inversion.code import CODE_SUFFIXES, Inversion, load_inversion, picture_digest, save_inversion
from mien.judges import Identity, Perceptual
from mien.nets.features import FaceNet
from mien.report import Sink, ignore

__all__ = ["NUMBERS", "Lab", "LabConfig", "Part", "Picture", "is_kept", "kept_code", "record"]

NUMBERS = {"mse": "MSE", "psnr": "PSNR, dB", "perceptual": "perceptual", "ms_ssim": "MS-SSIM", "identity": "identity"}
"""What is measured of a projection => its heading."""


@dataclass(frozen=True, kw_only=True)
class LabConfig:
    """Settings of a lab."""

    method: str = "optimize"  # of inversion
    steps: int | None = None  # of its last refinement, by default its own
    cycles: int = 2  # of the space of faces, 0 = straight blends
    edit_steps: int | None = None  # of expressions and swaps, by default their own
    blends: int = 6  # chosen by the seed, beside the even one
    frames: int = 24  # of the morph from one person to the next

    def __post_init__(self) -> None:
        if self.blends < 0 or self.frames < 2:
            raise InputError(f"blends from 0 and frames from 2, got {self.blends} and {self.frames}")


@dataclass(frozen=True, eq=False)
class Picture:
    """A tile of a figure: what it is and says, and bars of shares where it is a blend."""

    image: Image
    title: str = ""
    text: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)
    is_head: bool = False


@dataclass(frozen=True, eq=False)
class Part:
    """A figure of the lab: rows of tiles, None where one stays empty, and its numbers.

    Attributes:
        key: its name in addresses and in the report.
        title: its heading.
        brief: what the figure says of itself where it stands alone.
        text: what the page says of it.
        lines: rows of tiles.
        numbers: for the report.
        html: what stands below on the page.
        videos: shown below, too.
        notes: what is wrong with it.
    """

    key: str
    title: str
    brief: str
    text: str
    lines: Sequence[Sequence[Picture | None]]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    html: Sequence[str] = ()
    videos: Sequence[Path] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Lab:
    """The people of a lab, and what its stages work with.

    Attributes:
        studio: networks.
        people: at least one.
        styles: name => code that gives its last rows.
        outdir: where codes are kept.
        looks: who says how different pictures look.
        identity: who says whose face it is.
        config: settings.
        on_step: hears of every step.
    """

    studio: Studio
    people: Sequence[Someone]
    styles: Mapping[str, Inversion]
    outdir: Path
    looks: Perceptual
    identity: Identity
    config: LabConfig = LabConfig()
    on_step: Sink = ignore

    @property
    def face_net(self) -> FaceNet:
        """The network that reads pose and expression.

        Raises:
            InputError: the studio was made without.
        """
        if self.studio.face_net is None:
            raise InputError("a lab reads faces, and the studio has no face network", hint="give it one")
        return self.studio.face_net

    def place(self, someone: Someone) -> Path:
        """Return where a person's projections are kept."""
        return self.outdir / "projections" / slug(someone.name)

    def project(self, someone: Someone, photo: Photo) -> dict[str, float]:
        """Invert a photo unless that is done, and return how near the projection is."""
        subject = Subject(slug(photo.path.stem), photo.subject.picture, photo.subject.img)
        judges = {"looks": self.looks, "identity": self.identity}
        found = measure(self.studio, subject, self.config.method, self.config.steps, self.place(someone), judges)
        return {key: found[key] for key in NUMBERS}

    def code(self, someone: Someone, photo: Photo | None = None) -> Inversion:
        """Return the code of a photo that was projected, by default the person's best."""
        path = self.place(someone) / slug((photo or someone.best).path.stem)
        kept = (path.with_name(path.name + suffix) for suffix in reversed(CODE_SUFFIXES))
        return load_inversion(next(file for file in kept if file.is_file()))

    @torch.no_grad()
    def who(self, img: Tensor) -> Tensor:
        """Describe faces [N, 3, H, H] by unit vectors [N, D]."""
        return self.identity.describe(resize(img.cpu(), EVAL_PX).clamp(-1, 1))

    def likeness(self, img: Tensor, other: Tensor) -> float:
        """Return the cosine of two faces' identities."""
        return float((self.who(img) * self.who(other)).sum())

    def in_photo(self, someone: Someone, img: Tensor) -> Image:
        """Change the person's best crop as img [1, 3, H, H] differs from its projection: the photo's detail stays."""
        before = self.studio.render(self.code(someone))
        change = resize((img - before).cpu(), EVAL_PX)
        return to_pil((someone.best.subject.picture + change).clamp(-1, 1))[0]

    def inputs(self, people: Sequence[Someone]) -> dict[str, Any]:
        """Return what everything that is made of some people depends on."""
        codes = [picture_digest(self.code(someone).ws) for someone in people]
        pictures = [someone.best.digest for someone in people]
        return {"weights": self.studio.weights(), "seed": self.studio.seed, "codes": codes, "pictures": pictures}


def is_kept(path: Path, inputs: Mapping[str, Any]) -> bool:
    """Say whether a file was made of these inputs, so that it need not be made again."""
    record = path.with_suffix(".json")
    if not path.is_file() or not record.is_file():
        return False
    return bool(json.loads(record.read_text(encoding="utf-8")) == json.loads(json.dumps(inputs)))


def record(path: Path, inputs: Mapping[str, Any]) -> None:
    """Write down what a file was made of, once it is whole."""
    write_text(json.dumps(inputs), path.with_suffix(".json"))


def kept_code(path: Path, inputs: Mapping[str, Any], make: Callable[[], Inversion]) -> Inversion:
    """Return a code, made now, or kept from before when it was made of the same."""
    if is_kept(path, inputs):
        return load_inversion(path)
    code = make()
    save_inversion(code, path)
    record(path, inputs)
    return code
