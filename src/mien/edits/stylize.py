"""Paint one picture in the style of others: Gatys' transfer, from coarse to fine, with what its successors added.

A picture is optimised until its maps have the style's statistics and keep the content's places. Styles may be several;
colours may stay; faces may be spared: what is spared is a soft part of the content itself, on top of what is painted,
and does not count as style.

Source: Gatys et al. 2016, doi:10.1109/CVPR.2016.265; coarse to fine: Gatys et al. 2017, Sec. 6, arXiv:1611.07865;
patches: Elnekave and Weiss 2022, arXiv:2203.11862.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.edits.colours import grey, match_colours, match_light, with_colours_of
from mien.edits.descent import DescentConfig, descend
from mien.edits.looks import Look
from mien.edits.style_settings import SMALLEST_PX, StyleConfig
from mien.edits.style_terms import distance, gram, moments, projected, sliced, total_variation, wasserstein
from mien.errors import InputError
from mien.images import resize, save_png, to_pil
from mien.report import Sink, Step, ignore

__all__ = ["Stylized", "stylize"]

NUM_PROJECTIONS = 64
MAX_PLACES = 12_000  # patches that are sorted at a step: with more, they lie further apart


@dataclass(frozen=True)
class Stylized:
    """What `stylize` made: the picture [1,3,H,W] in [-1,1], and how."""

    img: Tensor
    num_steps: int
    restarts: Mapping[int, tuple[int, ...]]  # size px => steps at which a stalled optimiser began anew
    settled: tuple[int, ...]  # sizes that were done before their last step
    losses: Mapping[str, float]  # at the end, weighted
    step_s: Mapping[int, float]  # size px => mean seconds of a step

    @property
    def record(self) -> dict[str, Any]:
        """What a report says of it."""
        return {
            "size_px": [self.img.shape[3], self.img.shape[2]],
            "num_steps": self.num_steps,
            "restarts": {str(px): list(steps) for px, steps in self.restarts.items() if steps},
            "settled_px": list(self.settled),
            "losses": dict(self.losses),
            "step_s": {str(px): round(s, 4) for px, s in self.step_s.items()},
        }


# ---- One size -------------------------------------------------------------------------------------------------------


def _fit(img: Tensor, longest_px: float) -> Tensor:
    """Resize img [1,C,H,W] so that its longest side is `longest_px`, and no side is below the smallest."""
    shrink = longest_px / max(img.shape[-2:])
    height, width = (max(SMALLEST_PX, round(side * shrink)) for side in img.shape[-2:])
    return resize(img, (width, height))


class _Lattice(TypedDict):
    stride: int
    offset: tuple[int, int]


def _lattice(size_px: Sequence[int], random: torch.Generator) -> _Lattice:
    """Choose about `MAX_PLACES` patches of a map of (height, width), others each time."""
    stride = math.ceil(math.sqrt(size_px[0] * size_px[1] / MAX_PLACES))
    top, left = torch.randint(stride, (2,), generator=random).tolist()
    return _Lattice(stride=stride, offset=(top, left))


class _Objective:
    """The loss at one size: what the content and the styles say there, against the picture.

    `guide` is the content as its maps are taken: in the colours of the style, where these will be painted.
    """

    def __init__(
        self,
        look: Look,
        content: Tensor,
        guide: Tensor,
        styles: Sequence[tuple[float, Tensor]],
        spared: Tensor | None,
        c: StyleConfig,
    ) -> None:
        self.look, self.content, self.guide, self.spared, self.config = look, content, guide, spared, c
        self.style_names, self.content_names = list(c.style_layers), list(c.content_layers) if c.content_weight else []
        self.painted = None if spared is None else 1 - spared
        with torch.no_grad():
            self.content_maps = look.maps(guide, self.content_names) if self.content_names else {}
            self.styles = [(w, self._statistics(look.maps(img, self.style_names), None)) for w, img in styles]
        self.parts: dict[str, float] = {}

    def _statistics(self, maps: Mapping[str, Tensor], weight: Tensor | None) -> dict[str, Any]:
        if self.config.style_loss == "sliced":
            return dict(maps)
        summary: Callable[[Tensor, Tensor | None], Any] = gram if self.config.style_loss == "gram" else moments
        return {name: summary(m, weight) for name, m in maps.items()}

    def composite(self, x: Tensor) -> Tensor:
        """Return the picture as it is seen: painted, and the content where it is spared."""
        return x if self.spared is None else torch.lerp(x, self.content, self.spared)

    def __call__(self, x: Tensor, step: int) -> Tensor:
        c, img = self.config, self.composite(x)
        maps = self.look.maps(img, list(dict.fromkeys([*self.style_names, *self.content_names])))
        own = self._statistics({name: maps[name] for name in self.style_names}, self.painted)
        total_weight = math.fsum(w for w, _ in self.styles)
        style = torch.stack([w / total_weight * self._style(own, aim, step) for w, aim in self.styles]).sum()
        terms = {"style": c.style_weight * style}
        if self.content_names:
            away = [w * distance(maps[n], self.content_maps[n], c.distance) for n, w in c.content_layers.items()]
            terms["content"] = c.content_weight * torch.stack(away).sum()
        if c.tv_weight:
            terms["tv"] = c.tv_weight * total_variation(img)
        self.parts = {name: float(value.detach()) for name, value in terms.items()}
        return torch.stack(list(terms.values())).sum()

    def _style(self, own: Mapping[str, Any], aim: Mapping[str, Any], step: int) -> Tensor:
        c, parts = self.config, []
        for name, weight in c.style_layers.items():
            if c.style_loss == "gram":
                part = distance(own[name], aim[name], c.distance)
            elif c.style_loss == "wasserstein":
                part = wasserstein(own[name], aim[name])
            else:
                part = self._sliced(name, own[name], aim[name], step if c.optimizer == "adam" else 0)
            parts.append(weight * part)
        return torch.stack(parts).sum()

    def _sliced(self, name: str, own: Tensor, aim: Tensor, step: int) -> Tensor:
        """Compare patches along random directions, other ones at each step of Adam."""
        patch_px = 1 if name.startswith("colour") else self.config.patch_px
        k = min(patch_px, *own.shape[-2:], *aim.shape[-2:])
        map_px = own.shape[-2:]
        own = F.pad(own, (k // 2,) * 4, mode="reflect")  # pixels at the border belong to as many patches as others
        random = torch.Generator().manual_seed(
            (self.config.seed * 1_000_003 + step) * 64 + self.style_names.index(name)
        )
        directions = torch.randn(NUM_PROJECTIONS, own.shape[1], k, k, generator=random)
        filters = (directions / directions.flatten(1).norm(dim=1)[:, None, None, None]).to(own)
        at, at_aim = (_lattice(maps.shape[-2:], random) for maps in (own, aim))
        found = projected(own, filters, **at)
        weight = None
        if self.painted is not None:
            places = F.pad(F.interpolate(self.painted, map_px, mode="area"), (k // 2,) * 4, mode="reflect")
            weight = projected(places, places.new_full((1, 1, k, k), 1 / k**2), **at)[0]
        return sliced(found, projected(aim, filters, **at_aim), weight)


# ---- The whole ------------------------------------------------------------------------------------------------------


def _check_inputs(
    content: Tensor, styles: Sequence[Tensor], weights: Sequence[float], spare_mask: Tensor | None
) -> None:
    if not styles or len(weights) != len(styles):
        raise InputError(f"{len(styles)} styles with {len(weights)} weights", hint="give one weight for each style")
    if any(not 0 <= w < math.inf for w in weights) or sum(weights) <= 0:
        raise InputError(f"the weights of styles are {list(weights)}", hint="give numbers from 0, one above it")
    for what, img in [("the content", content), *((f"style {i + 1}", img) for i, img in enumerate(styles))]:
        if img.ndim != 4 or img.shape[:2] != (1, 3):
            raise InputError(f"{what} must be [1, 3, H, W], got {list(img.shape)}")
        if not bool(img.isfinite().all()):
            raise InputError(f"{what} holds values that are not numbers", hint="give another picture")
    if spare_mask is not None and (spare_mask.shape[:2] != (1, 1) or spare_mask.shape[-2:] != content.shape[-2:]):
        raise InputError(f"the mask is {list(spare_mask.shape)}, the content {list(content.shape)}")


def stylize(
    content: Tensor,
    styles: Sequence[Tensor],
    look: Look,
    config: StyleConfig | None = None,
    *,
    style_weights: Sequence[float] | None = None,
    spare_mask: Tensor | None = None,
    preview: Path | None = None,
    preview_every: int = 20,
    on_step: Sink = ignore,
) -> Stylized:
    """Paint the content in the style of other pictures.

    Args:
        content: [1,3,H,W] in [-1,1] of any size.
        styles: likewise.
        look: whose maps are compared.
        config: how; a preset, perhaps changed.
        style_weights: what each style counts; by default all the same.
        spare_mask: [1,1,H,W] of the content's size, 1 where `config.spare` of the content is to stay.
        preview: PNG that shows the picture as it grows; steps name it.
        preview_every: steps between previews.
        on_step: hears of every step and its losses; may raise to stop.

    Raises:
        InputError: pictures, weights or a mask that cannot be, or hold no numbers.
        MienError: the optimiser found no numbers, or no way to go.
    """
    c = config or StyleConfig()
    weights = [1.0] * len(styles) if style_weights is None else list(style_weights)
    _check_inputs(content, styles, weights, spare_mask)
    sizes = c.sizes_px
    steps_of = [c.num_steps, *[c.num_later_steps] * (len(sizes) - 1)]
    x: Tensor | None = None
    done, restarts, settled, step_s = 0, {}, [], {}
    parts: dict[str, float] = {}
    for px, num_steps in zip(sizes, steps_of, strict=True):
        small = _fit(content, px).clamp(-1, 1)
        objective = _objective(small, styles, weights, spare_mask, px, look, c)
        x = _start(c, objective.guide) if x is None else resize(x, (small.shape[3], small.shape[2])).clamp(-1, 1)
        began, done_before = time.perf_counter(), done

        def tell(step: int, _loss: float, now: Tensor, o: _Objective = objective, before: int = done_before) -> None:
            pictures = {}
            if preview is not None and step % preview_every == 0:
                save_png(to_pil(o.composite(now))[0], preview)
                pictures = {"preview": preview}
            on_step(Step("stylize", before + step + 1, sum(steps_of), o.parts, pictures))

        descent = DescentConfig(
            optimizer=c.optimizer,
            num_steps=num_steps,
            lr=c.lr,
            final_lr=c.final_lr,
            average=c.average,
            bounds=(-1.0, 1.0),
            patience=max(20, num_steps // 8),
        )
        found = descend(objective, x, descent, tell)
        num = len(found.losses)
        x, parts = objective.composite(found.x).clamp(-1, 1), objective.parts
        done, restarts[px], step_s[px] = done + num, found.restarts, (time.perf_counter() - began) / num
        settled += [px] * found.has_settled
    assert x is not None
    if c.colours == "luminance":
        x = with_colours_of(x, _fit(content, c.size_px).clamp(-1, 1))
    return Stylized(x.detach(), done, restarts, tuple(settled), parts, step_s)


def _objective(
    small: Tensor,
    styles: Sequence[Tensor],
    weights: Sequence[float],
    spare_mask: Tensor | None,
    px: int,
    look: Look,
    c: StyleConfig,
) -> _Objective:
    """Bring everything to one size and to the colours that are compared."""
    spared = None
    if spare_mask is not None and c.spare > 0:
        spared = c.spare * F.interpolate(spare_mask.float(), small.shape[-2:], mode="area").clamp(0, 1)
    painted = []
    for img in styles:
        style = _fit(img, px * c.style_scale).clamp(-1, 1)
        if c.colours != "style":
            style = (match_light if c.colours == "luminance" else match_colours)(style, small)
        painted.append(style)
    seen = grey(small).contiguous() if c.colours == "luminance" else small
    heaviest = painted[list(weights).index(max(weights))]
    guide = match_colours(seen, heaviest) if c.start == "recoloured" and c.colours == "style" else seen
    return _Objective(look, seen, guide, list(zip(weights, painted, strict=True)), spared, c)


def _start(c: StyleConfig, guide: Tensor) -> Tensor:
    if c.start != "noise":
        return guide
    random = torch.Generator().manual_seed(c.seed)
    return 0.2 * torch.randn(guide.shape, generator=random).to(guide)
