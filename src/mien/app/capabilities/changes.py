"""Codes that are moved: along directions, to another style, expression or person, by the points of a face."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import PIL.Image
import torch
from PIL.Image import Image
from torch import Tensor, nn

from mien.app.capabilities.codes import Codes
from mien.app.capabilities.networks import in_precision
from mien.edits.blend import MIN_COSINE
from mien.edits.drag import DragConfig, Dragged, Points, drag
from mien.edits.expression import MOVING, ExpressionConfig, along, express, read, wanted_of
from mien.edits.lab_swap import lab_swap
from mien.edits.style import decode, restyle
from mien.edits.swap import Swap, SwapConfig, SwapMeans, attribute_moves, swap
from mien.edits.sweep import Sweep, SweepConfig, sweep
from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.inversion.invert import RowMove
from mien.judges import SHIPPED, identity_judge
from mien.latents import mix
from mien.nets.features import EXPRESSIONS, FaceNet
from mien.nets.generator import Generator
from mien.report import Sink, ignore
from mien.weights.load import find_weights, load_generator

__all__ = ["Changes"]


class Changes(Codes):
    """What a studio does to codes; each capability is one method."""

    def edit(self, inversion: Inversion, strengths: Mapping[str, float]) -> Inversion:
        """Move a code along directions, in standard deviations each.

        Raises:
            InputError: an unknown direction, or the code of another generator.
        """
        self.check(inversion)
        return self.directions.edit(inversion, strengths)

    def mix(self, inversion: Inversion, style: Inversion, layers: Iterable[int]) -> Inversion:
        """Take the rows `layers` from another code.

        Raises:
            InputError: a row that is not there, or the code of another generator.
        """
        self.check(inversion)
        self.check(style)
        return inversion.with_ws(mix(inversion.ws[None].cpu(), style.ws[None].cpu(), layers)[0])

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

    def restyle(self, inversion: Inversion, style: Inversion, layers: Iterable[int], psi: float = 0.0) -> Inversion:
        """Take the rows `layers` from a style's code, with the share `psi` of the face's own kept; see `mix`."""
        self.check(inversion)
        self.check(style)
        return inversion.with_ws(restyle(inversion.ws[None].cpu(), style.ws[None].cpu(), layers, psi)[0])

    def move_rows(self, inversion: Inversion, direction: str, move: RowMove) -> Inversion:
        """Move some rows along a direction as a published preset says; see `expression.along`."""
        self.check(inversion)
        return inversion.with_ws(along(inversion.ws[None], self.directions[direction], move)[0])

    @in_precision
    def decode(self, inversion: Inversion, by: Generator, *, min_cosine: float | None = MIN_COSINE) -> Tensor:
        """Render a code as img [1, 3, H, W] by a generator that is related to the studio's; see `style.decode`."""
        self.check(inversion)
        return decode(inversion, self.G, by, min_cosine=min_cosine)

    @in_precision
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

    def _reader(self) -> FaceNet:
        if self.face_net is None:
            raise InputError("nothing reads expressions: the studio has no face network", hint="give it one")
        return self.face_net

    @in_precision
    def expression(self, img: Tensor) -> dict[str, float]:
        """Read the expression of img [1, 3, H, H]: blendshape => 0..1, without where the eyes look."""
        with torch.no_grad():
            shown = read(self._reader(), img.to(self.device)).expression[0]
        return {EXPRESSIONS[i]: float(shown[i]) for i in MOVING}

    @in_precision
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
        return SwapMeans(self._reader(), attribute_moves(self.G, self._reader()), self.stats, describe, self.motion)

    @in_precision
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

    @in_precision
    def sweep(self, style: str, config: SweepConfig | None = None, *, on_step: Sink = ignore) -> Sweep:
        """Blend an adapted generator, by name or file, into the studio's in many ways; see `mien.edits.sweep`.

        Raises:
            InputError: it is not related to the studio's.
        """
        other = load_generator(find_weights(style))
        assert isinstance(other, nn.Module)
        return sweep(self.G, {style: other.to(self.device)}, self._reader(), config, on_step=on_step)

    @in_precision
    def lab_swap(
        self, source_img: Tensor, targets: Sequence[Inversion], target_img: Tensor, *, on_step: Sink = ignore
    ) -> list[Swap]:
        """Swap as a face lab does, by the preset `lab-swap`. See `edits.lab_swap`."""
        given, target_img = source_img.to(self.device), target_img.to(self.device)
        return lab_swap(self.G, given, targets, target_img, means=self.swap_means, on_step=on_step)
