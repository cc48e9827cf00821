"""Inversion as a whole: any start, then any refinements one after the other, under the names that users type.

A method's name is a preset's, or a start and a refinement joined by a plus: `nearest+w`, `encoder+hybrid`.

Source: any embedding with any refinement: the plan of github.com/caopulan/GANInverter; settings: see `PRESETS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mien import __version__
from mien.errors import InputError
from mien.inversion.code import Inversion, picture_digest
from mien.inversion.hybrid import HybridConfig, hybrid
from mien.inversion.objective import TermWeights
from mien.inversion.project import ProjectConfig, project
from mien.inversion.starts import STARTS, Means, start_codes
from mien.inversion.tune import TuneConfig, tune
from mien.latents import scale_rows
from mien.nets.generator import Generator
from mien.report import Sink, ignore

__all__ = ["EDIT_PRESETS", "PRESETS", "REFINEMENTS", "Method", "RowMove", "find_edit", "find_method", "invert"]

Stage = ProjectConfig | TuneConfig | HybridConfig
"""Settings of one refinement; their type says which one."""


@dataclass(frozen=True)
class Method:
    """A start of `STARTS`, and refinements in order; tuning of weights comes last, if at all."""

    start: str
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if any(not isinstance(stage, ProjectConfig) for stage in self.stages[:-1]):
            raise InputError("weights are tuned last", hint="put codes and noise before them")

    @property
    def changes_generator(self) -> bool:
        """Whether what is found renders by a generator of its own."""
        return any(not isinstance(stage, ProjectConfig) for stage in self.stages)

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them."""
        return {"start": self.start, "stages": [{"stage": _name(s), **asdict(s)} for s in self.stages]}

    def with_steps(self, num_steps: int) -> Method:
        """Return the same with another number of steps in the last refinement."""
        if not self.stages:
            return self
        return replace(self, stages=(*self.stages[:-1], replace(self.stages[-1], num_steps=num_steps)))

    def with_seed(self, seed: int) -> Method:
        """Return the same with another seed of everything random."""
        return replace(self, stages=tuple(_seeded(stage, seed) for stage in self.stages))


def _name(stage: Stage) -> str:
    return {ProjectConfig: "project", TuneConfig: "tune", HybridConfig: "hybrid"}[type(stage)]


def _seeded(stage: Stage, seed: int) -> Stage:
    if isinstance(stage, HybridConfig):
        return replace(stage, tune=replace(stage.tune, seed=seed))
    return replace(stage, seed=seed)


PIVOT = ProjectConfig(num_steps=60, noise_lr=0.0)
EDITABLE = replace(PIVOT, offset_weight=0.4, prior_weight=0.2)
LONG = TuneConfig(num_steps=180)
REFINEMENTS: Mapping[str, tuple[Stage, ...]] = {
    "none": (),
    "w": (ProjectConfig(space="w", offset_weight=0.0),),
    "w+": (ProjectConfig(noise_lr=0.0),),
    "noise": (ProjectConfig(space="fixed"),),
    "w+noise": (ProjectConfig(),),
    "pti": (PIVOT, LONG),
    "hybrid": (PIVOT, HybridConfig(tune=LONG)),
}
"""Name => what follows the start."""

LPIPS_ALONE = TermWeights(pixel=0.0, ssim=0.0, perceptual=1.0, identity=0.0)
PAPER = ProjectConfig(
    space="w",
    num_steps=1000,
    is_lr_of_w=True,
    lr_rampdown=0.25,
    w_noise=0.05,
    terms=LPIPS_ALONE,
    offset_weight=0.0,
    prior_weight=0.0,
    noise_lr=0.1,
    noise_weight=1e5,
    patience=1000,
)


def _lab(squared: float, perceptual: float, identity: float) -> ProjectConfig:
    terms = TermWeights(pixel=0.0, ssim=0.0, squared=squared, perceptual=perceptual, identity=identity)
    return ProjectConfig(
        num_steps=100,
        lr=0.01,
        is_lr_of_w=True,
        lr_rampup=0.0,
        lr_rampdown=0.0,
        terms=terms,
        offset_weight=0.0,
        prior_weight=0.0,
        noise_lr=0.01,
        noise_weight=5e5,
        patience=100,
    )


PRESETS: Mapping[str, Method] = {
    "optimize": Method("auto", REFINEMENTS["w+noise"]),
    "encoder": Method("encoder"),
    "iterative": Method("iterative"),
    "pti": Method("auto", REFINEMENTS["pti"]),
    "hybrid": Method("auto", REFINEMENTS["hybrid"]),
    "pivot": Method("auto", (EDITABLE,)),
    "editable": Method("auto", (EDITABLE, TuneConfig())),
    "stylegan2-projector": Method("average", (PAPER,)),
    "pti-paper": Method(
        "average",
        (
            replace(PAPER, num_steps=450, lr=0.01, patience=450),
            TuneConfig(
                num_steps=350,
                lr=3e-4,
                lr_rampup=0.0,
                lr_rampdown=0.0,
                terms=TermWeights(pixel=0.0, ssim=0.0, squared=1.0, perceptual=1.0, identity=0.0),
                stop_perceptual=0.06,
                locality_weight=0.0,
            ),
        ),
    ),
    "lab-projection": Method("auto", (_lab(0.5, 1.0, 0.0),)),
    "lab-swap": Method("auto", (_lab(1.0, 2.0, 1.0),)),
}
"""Name => method. `optimize`, `pti` and `hybrid` have settings of our own, chosen on people held out; `pivot` stays
where the mapping's codes are, so that large edits look natural, and `editable` tunes weights there; the others have
those of their sources: Karras et al. 2020, App. D; Roich et al. 2021 as its code has them; a face lab's course work.
Where a source compares by LPIPS or ArcFace, the face network that is given takes their place."""


@dataclass(frozen=True, kw_only=True)
class RowMove:
    """An edit of some rows of a code as published for networks of 18 rows.

    Attributes:
        first: row that is moved first,
        last: and last, counted in 18 rows.
        psi: share of the code's own rows that is kept in a mix, or of the move that is made.
        weight: length of the move along a direction.
    """

    first: int
    last: int
    psi: float
    weight: float = 1.0

    def rows(self, num_ws: int) -> list[int]:
        """Return the rows at the same places of a network with `num_ws` rows.

        >>> RowMove(first=9, last=17, psi=0.1).rows(10)
        [5, 6, 7, 8, 9]
        """
        return scale_rows(range(self.first, self.last + 1), num_ws)


EDIT_PRESETS: Mapping[str, RowMove] = {
    "lab-style": RowMove(first=9, last=17, psi=0.1),
    "lab-emotion": RowMove(first=4, last=9, psi=0.7, weight=15.0),
}


def find_edit(name: str) -> RowMove:
    """Return the edit of a preset's name.

    Raises:
        InputError: no such preset.
    """
    if name not in EDIT_PRESETS:
        raise InputError(f"no preset named {name!r}", hint=f"known: {', '.join(EDIT_PRESETS)}")
    return EDIT_PRESETS[name]


def find_method(name: str) -> Method:
    """Return the method of a preset's name or of `start+refinement`.

    >>> find_method("nearest+w").start
    'nearest'

    Raises:
        InputError: no such method.
    """
    if name in PRESETS:
        return PRESETS[name]
    start, plus, refinement = name.partition("+")
    if plus and start in STARTS and refinement in REFINEMENTS:
        return Method(start, REFINEMENTS[refinement])
    hint = f"known: {', '.join(PRESETS)}; or one of {', '.join(STARTS)} + one of {', '.join(REFINEMENTS)}"
    raise InputError(f"no method named {name!r}", hint=hint)


def _refine(G: Generator, img: Tensor, found: list[Inversion], stage: Stage, means: Means, on_step: Sink) -> list[Any]:
    common: dict[str, Any] = dict(face_model=means.face_model, stats=means.stats.to(img.device), on_step=on_step)
    if isinstance(stage, ProjectConfig):
        start = torch.stack([inversion.ws for inversion in found])
        return project(G, img, config=stage, start=start, dtype=means.dtype, **common)
    if isinstance(stage, TuneConfig):
        return tune(G, img, found, config=stage, **common)
    return hybrid(G, img, found, config=stage, **common)


def invert(G: Generator, img: Tensor, method: Method, means: Means, *, on_step: Sink = ignore) -> list[Inversion]:
    """Find the codes of pictures, and what else belongs to them, by one method.

    Codes of a batch are found together, weights and feature maps person by person; nobody's result depends on who else
    is in the batch, but for the rounding of sums over other shapes.

    Args:
        G: the generator; nothing of it is changed.
        img: [N, 3, H, W] in [-1, 1], aligned faces of the generator's side.
        method: what to do.
        means: what to do it with.
        on_step: hears of every step.

    Raises:
        InputError: pictures of another side, or with values that are not finite.
        WeightsError: the start needs an encoder and there is none.
    """
    side = G.img_resolution
    if img.ndim != 4 or img.shape[1:] != (3, side, side):
        raise InputError(f"img must be [N, 3, {side}, {side}], got {list(img.shape)}", hint="align the photo first")
    if not img.isfinite().all():
        raise InputError("a picture has values that are not finite")
    codes = start_codes(G, img, method.start, means)
    found = [Inversion(ws=ws) for ws in codes]
    for stage in method.stages:
        found = _refine(G, img, found, stage, means, on_step)
    record, versions = method.record(), {"mien": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return [
        replace(inversion, config=record, picture=picture_digest(one), versions=versions)
        for inversion, one in zip(found, img, strict=True)
    ]
