"""Drag points of a face to where they should be: the first rows of its code move until the features have arrived.

Each step pulls a small patch of features around every point a little towards its goal, then looks for where the point
went by the features that it had at the start. Radii are in px of the feature map, so that they hold for networks of
any size. Beyond the paper, the code may not become less likely for the mapping network than it was, which keeps a
little more of the person.

Source: Pan et al. 2023 (DragGAN), Sec. 3.2, arXiv:2305.10973; codes kept likely: Zhu et al. 2020, arXiv:2012.09036.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.inversion.personal import feature_layers, personal, synthesis_of
from mien.inversion.project import noise_options
from mien.latents import LatentStats
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore

__all__ = ["DragConfig", "Dragged", "Points", "drag", "drag_layer"]

Points = NDArray[np.float64]

GRID = 0.25  # between places that are looked at, in px of the map
COARSEST_PX = 32  # side of the map for small pictures


@dataclass(frozen=True, kw_only=True)
class DragConfig:
    """Settings of `drag`; radii and the step in px of the feature map, of which the paper's has 128 for 512 px.

    The paper's step is the same; its patch of 0.75 follows our detector's points less closely on our faces of 64 px.
    """

    num_steps: int = 150  # most optimiser steps
    lr: float = 0.01  # of Adam, where the spread of one coordinate of w is 1
    num_rows: int = 6  # first rows of the code that move: pose and shape
    layer: str = ""  # part of the synthesis whose features are followed; by default `drag_layer`
    motion_radius: float = 1.5  # of the patch that is pulled
    motion_step: float = 0.25  # how far it is pulled at once
    track_radius: float = 1.0  # where a point is looked for after a step, to either side
    mask_weight: float = 20.0  # features outside of the mask stay
    prior_weight: float = 1.0  # the code stays as likely as it was, see `LatentStats.unlikelihood`
    reach: float = 1 / 256  # of the picture's side: points this near have arrived

    def __post_init__(self) -> None:
        for name in ("num_steps", "num_rows"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "motion_radius", "motion_step", "track_radius", "reach"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("mask_weight", "prior_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be at least 0, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Dragged:
    """What a drag came to.

    Attributes:
        inversion: the face with its new code.
        points: [K, 2] px of the render, where the points are now by their features.
        distances_px: [K], from there to the goals.
        num_steps: steps that were taken; of all their codes the one whose points are nearest is kept.
    """

    inversion: Inversion
    points: Points
    distances_px: Points
    num_steps: int


def _rates(G: Generator) -> dict[str, int]:
    """Part of the synthesis => samples along the picture's side, where maps have a margin around the picture."""
    bands, names = getattr(G.synthesis, "bands", ()), getattr(G.synthesis, "layer_names", ())
    return {name: band.sampling_rate for name, band in zip(names, bands, strict=True)}


def drag_layer(G: Generator) -> str:
    """Return the last part of the synthesis whose map has at most a quarter of the picture's side, or 32 px.

    StyleGAN2's of 512 px gives `b128`, the sixth block, which the paper found best.
    """
    rates = _rates(G)
    maps = {name: shape for name, shape in feature_layers(G).items() if shape[0] > G.img_channels}  # not the colours
    sides = {name: rates.get(name, shape[1]) for name, shape in maps.items()}
    wanted = max(G.img_resolution // 4, COARSEST_PX, min(sides.values()))
    best = max(side for side in sides.values() if side <= wanted)
    return [name for name, side in sides.items() if side == best][-1]


class _Features:
    """Renders that also give the map of one part of the synthesis, read at places of the picture."""

    def __init__(self, G: Generator, inversion: Inversion, layer: str) -> None:
        self.G = personal(G, inversion.changes)  # a twin: the hook is never seen by anybody else
        self.options = noise_options(inversion.noise, G.w_avg.device)
        self.side_px = float(G.img_resolution)
        self._map: Tensor | None = None
        try:
            synthesis_of(self.G).get_submodule(layer).register_forward_hook(self._keep)
        except AttributeError as err:
            known = ", ".join(feature_layers(G))
            raise InputError(f"this generator has no features {layer!r}", hint=f"known: {known}") from err
        self.rate = _rates(G).get(layer)

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._map = output[0] if isinstance(output, tuple) else output

    def __call__(self, ws: Tensor) -> Tensor:
        """The map [1, C, h, w] of ws [1, num_ws, w_dim]."""
        self.G.synthesis(ws, noise_mode="const", **self.options)
        assert self._map is not None
        return self._map

    def unit_px(self, features: Tensor) -> float:
        """Px of the picture in one px of the map."""
        return self.side_px / (self.rate or features.shape[-1])

    def at(self, features: Tensor, places: Tensor) -> Tensor:
        """Read a map [1, C, h, w] at places [..., 2] px of the picture: [C, ...], bilinear."""
        inside = (self.rate or features.shape[-1]) / features.shape[-1]  # the rest is margin
        grid = (places.reshape(1, 1, -1, 2) * (2 / self.side_px) - 1) * inside
        read = F.grid_sample(features, grid.to(features.dtype), padding_mode="border", align_corners=False)
        return read.reshape(features.shape[1], *places.shape[:-1])


def _square(radius_px: float, step_px: float) -> Tensor:
    """Offsets [M, 2] px on a grid around zero, `radius_px` to either side; zero is the middle one."""
    num = max(1, round(radius_px / step_px))
    line = torch.arange(-num, num + 1) * step_px
    return torch.cartesian_prod(line, line)


def _disc(radius_px: float, step_px: float) -> Tensor:
    """Offsets [M, 2] px as of `_square`, those within the radius."""
    offsets = _square(radius_px, step_px)
    return offsets[offsets.norm(dim=1) <= radius_px + 1e-6]


def _track(features: _Features, now: Tensor, points: Tensor, descriptors: Tensor, window: Tensor) -> Tensor:
    """Move each of points [K, 2] to the place in `window` [M, 2] around it that looks most like `descriptors` [C, K].

    Source: Pan et al. 2023, Eq. 2.
    """
    places = points[:, None] + window  # [K, M, 2]
    distance = (features.at(now, places) - descriptors[..., None]).abs().sum(0)  # [K, M]
    return places[torch.arange(len(points)), distance.argmin(1)]


def _check(G: Generator, handles: Points, goals: Points, mask: Tensor | None) -> None:
    if handles.ndim != 2 or handles.shape[1] != 2 or len(handles) == 0 or handles.shape != goals.shape:
        raise InputError(f"points and goals must both be [K, 2], got {list(handles.shape)} and {list(goals.shape)}")
    side = G.img_resolution
    for name, points in (("point", handles), ("goal", goals)):
        outside = ~((points >= 0) & (points <= side)).all(axis=1)
        if outside.any():
            x, y = points[outside][0]
            raise InputError(f"the {name} {x:.1f},{y:.1f} is outside of the face's {side}x{side} px")
    if mask is not None and mask.shape != (1, 1, side, side):
        raise InputError(f"mask must be [1, 1, {side}, {side}], got {list(mask.shape)}")


def drag(
    G: Generator,
    inversion: Inversion,
    handles: Points,
    goals: Points,
    *,
    stats: LatentStats,
    mask: Tensor | None = None,
    config: DragConfig | None = None,
    on_step: Sink = ignore,
) -> Dragged:
    """Move points of a face to their goals, with all that hangs on them.

    Args:
        G: the generator; nothing of it is changed.
        inversion: the face; its noise, changes of the generator and origin are kept.
        handles: [K, 2] px of the render, (x, y), the middle of the first pixel at 0.5.
        goals: [K, 2] px, where they should go.
        stats: of the generator.
        mask: [1, 1, H, H] in [0, 1], 1 where the picture may change; by default everywhere.
        config: settings.
        on_step: hears of every step, with the mean distance to the goals.

    Raises:
        InputError: points outside of the picture, or no such features.

    Source: Pan et al. 2023, Eq. 1-2, arXiv:2305.10973.
    """
    config = config or DragConfig()
    handles, goals = np.asarray(handles, np.float64), np.asarray(goals, np.float64)
    _check(G, handles, goals, mask)
    device, stats = G.w_avg.device, stats.to(G.w_avg.device)
    features = _Features(G, inversion, config.layer or drag_layer(G))
    points, to = (torch.from_numpy(p).float().to(device) for p in (handles, goals))
    start = inversion.ws[None].to(device).float()
    rows, fixed = start[:, : config.num_rows], start[:, config.num_rows :]
    moving = rows.clone().requires_grad_()
    adam = torch.optim.Adam([moving], lr=config.lr * stats.w_std / math.sqrt(G.w_dim))
    with torch.no_grad():
        first, unlikely = features(start), stats.unlikelihood(rows)
        descriptors = features.at(first, points)  # [C, K]
        unit_px = features.unit_px(first)
        held = None if mask is None else 1 - F.interpolate(mask.to(device), first.shape[2:], mode="area")
    patch = _disc(config.motion_radius * unit_px, GRID * unit_px).to(device)
    window = _square(config.track_radius * unit_px, GRID * unit_px).to(device)
    best = (math.inf, rows, points)
    for step in range(config.num_steps + 1):
        now = features(torch.cat([moving, fixed], dim=1))
        if step:
            points = _track(features, now.detach(), points, descriptors, window)
        away = to - points
        distances = away.norm(dim=1)
        mean_px = float(distances.mean())
        on_step(Step("drag", step, config.num_steps, {"px": mean_px}))
        if mean_px < best[0]:
            best = (mean_px, moving.detach().clone(), points)
        far = distances > config.reach * G.img_resolution
        if step == config.num_steps or not far.any():
            break
        ahead = away[far] * (config.motion_step * unit_px / distances[far]).clamp(max=1)[:, None]
        here = points[far, None] + patch  # [K, M, 2]
        pulled = features.at(now, here).detach() - features.at(now, here + ahead[:, None])  # Eq. 1
        loss = pulled.abs().mean((0, 2)).sum()
        loss = loss + config.prior_weight * (stats.unlikelihood(moving) - unlikely).clamp(min=0).mean()
        if held is not None:
            loss = loss + config.mask_weight * ((now - first) * held).abs().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    _, rows, points = best
    ws = torch.cat([rows, fixed], dim=1)[0].to(inversion.ws)
    distances = (to - points).norm(dim=1)
    return Dragged(inversion.with_ws(ws), points.double().cpu().numpy(), distances.double().cpu().numpy(), step)
