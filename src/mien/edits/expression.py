"""Expression transfer: give a face the expression of another picture, of a name or of a direction; keep the rest.

An expression is what the face network reads: MediaPipe's blendshapes of brows, eyes, jaw and mouth. First the code
makes the likeliest move that promises to bring it there by the network's slopes. With moves u that are standard normal
for the mapping, readings r + J u and their tolerances R, that is u = J' (J J' + R)^-1 (wanted - r); the pose is read
along and wanted as it is. Then a short descent weighs the expression against identity, pose, how unlikely the move is,
and the picture outside of eyes and mouth.

Source: the first move: Kalman 1960, doi:10.1115/1.3662552; where codes are normal: Zhu et al. 2020, arXiv:2012.09036;
emotions as action units: Ekman and Friesen 1983 (EMFACS).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mien.edits.directions import Direction, StyleDirection
from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.inversion.invert import RowMove
from mien.inversion.personal import personal
from mien.latents import P_SLOPE, LatentStats, scale_rows
from mien.losses import identity_distance
from mien.nets.features import EXPRESSIONS, FaceNet, flip_expression
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore

__all__ = [
    "EMOTIONS",
    "MOVING",
    "ExpressionConfig",
    "Reading",
    "along",
    "distance",
    "emotion",
    "express",
    "held",
    "read",
    "region",
    "wanted_of",
]

MOVING = [i for i, name in enumerate(EXPRESSIONS) if not name.startswith(("eyeLook", "noseSneer"))]
"""Columns of `FaceReading.expression` that are an expression; where the eyes look is not, a sneer was never seen."""


EMOTIONS: Mapping[str, Mapping[str, float]] = {
    "happiness": {"mouthSmile": 0.9, "mouthUpperUp": 0.5, "mouthFrown": 0.0, "mouthPucker": 0.0, "mouthPress": 0.1},
    "surprise": {
        "browInnerUp": 0.7,
        "browOuterUp": 0.7,
        "browDown": 0.0,
        "eyeWide": 0.1,
        "eyeSquint": 0.1,
        "eyeBlink": 0.03,
        "jawOpen": 0.5,
        "mouthSmile": 0.05,
        "mouthPress": 0.02,
    },
    "anger": {
        "browDown": 0.85,
        "browInnerUp": 0.0,
        "browOuterUp": 0.0,
        "eyeSquint": 0.7,
        "mouthSmile": 0.0,
        "mouthUpperUp": 0.0,
        "mouthFrown": 0.1,
        "mouthPress": 0.4,
        "jawOpen": 0.02,
    },
}
"""Emotion => blendshapes, both sides under one name; what is not named stays the person's own.

They are the action units of the emotions (happiness 6+12, surprise 1+2+5+26, anger 4+7+23+24) as blendshapes. How far
each goes is what the strongest twentieth to hundredth of 12,500 news photos show, to MediaPipe.
"""


class Reading(NamedTuple):
    """What is compared of N faces: `expression` [N, 32], `pose` [N, 3] degrees, `identity` [N, D] of unit length."""

    expression: Tensor
    pose: Tensor
    identity: Tensor


def read(face_net: FaceNet, img: Tensor) -> Reading:
    """Read img [N, 3, H, H] and its mirror picture, so that what only one of them shows counts half."""
    num = len(img)
    seen = face_net(torch.cat([img, img.flip(3)]))
    expression = (seen.expression[:num] + flip_expression(seen.expression[num:])) / 2
    return Reading(expression, seen.pose[:num], seen.identity[:num])


def distance(expression: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference of what moves in two expressions [N, 32], [N]."""
    return (expression - wanted)[:, MOVING].abs().mean(1)


def wanted_of(own: Tensor, shown: Mapping[str, float], strength: float = 1.0) -> Tensor:
    """Return the expression [N, 32] of faces that show something and else keep their own.

    Args:
        own: [N, 32].
        shown: blendshape => 0..1; a name without its side is both sides.
        strength: how much of the way is gone, 1 = there.

    Raises:
        InputError: an unknown name, or a value out of range.
    """
    wanted = own.clone()
    for name, value in shown.items():
        columns = [i for i, column in enumerate(EXPRESSIONS) if column in (name, f"{name}Left", f"{name}Right")]
        if not columns:
            raise InputError(f"no blendshape named {name!r}", hint=f"known: {', '.join(EXPRESSIONS)}")
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value:g}", hint="blendshapes go from 0 to 1")
        wanted[:, columns] = value
    return own.lerp(wanted, strength).clamp(0, 1)


def emotion(name: str) -> Mapping[str, float]:
    """Return the blendshapes of an emotion.

    Raises:
        InputError: an unknown name.
    """
    if name not in EMOTIONS:
        raise InputError(f"no emotion named {name!r}", hint=f"known: {', '.join(EMOTIONS)}")
    return EMOTIONS[name]


def region(side: int) -> Tensor:
    """Return where an expression moves an FFHQ-aligned face, [1, 1, side, side]: 1 at brows, eyes, mouth and chin."""
    at = (torch.arange(side) + 0.5) / side
    y, x = at[:, None], at[None]
    far = torch.full((side, side), math.inf)
    for cx, cy, rx, ry in ((0.5, 0.45, 0.30, 0.13), (0.5, 0.70, 0.26, 0.21)):
        far = torch.minimum(far, ((x - cx) / rx).square() + ((y - cy) / ry).square())
    return (1.5 - far).clamp(0, 1)[None, None]


@dataclass(frozen=True, kw_only=True)
class ExpressionConfig:
    """Settings of `express`. A move of length 1 is one standard deviation of the mapping's own codes."""

    first: int = 0  # row that is moved first,
    last: int = 9  # and last, counted in 18 rows
    tolerance: float = 0.1  # of a blendshape in the first step
    pose_tolerance_deg: float = 2.0  # likewise
    together: float = 0.9  # correlation of the moves of two rows, as likely
    overshoot: float = 1.5  # of what is wanted: renders show less than the network reads in them
    num_steps: int = 30  # of the descent; 0 = the first step alone
    lr: float = 0.1  # highest rate of Adam, in those standard deviations
    expression_weight: float = 10.0  # mean absolute difference of blendshapes
    identity_weight: float = 2.0  # one minus the cosine to the face before
    pose_weight: float = 1.0  # mean square of degrees / 10
    move_weight: float = 3.0  # mean square of the move
    outside_weight: float = 8.0  # mean absolute difference of pixels outside of `region`

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last < 18:
            raise InputError(f"rows {self.first} to {self.last}", hint="they are counted in 18, from 0 to 17")
        if self.num_steps < 0 or self.lr <= 0 or self.tolerance <= 0 or self.pose_tolerance_deg <= 0:
            raise InputError("steps go from 0, the rate and the tolerances from above 0")
        if not 0 <= self.together < 1:
            raise InputError(f"together is {self.together:g}", hint="a correlation from 0 to below 1")


class _Moves:
    """Moves u [N, rows, axes] that are standard normal where the mapping's codes are, and the codes they lead to."""

    def __init__(self, ws: Tensor, stats: LatentStats, config: ExpressionConfig) -> None:
        self.ws, self.rows = ws, scale_rows(range(config.first, config.last + 1), ws.shape[1])
        axes = stats.p_axes
        self.axes = axes @ torch.linalg.inv(axes.T @ axes)  # [w_dim, axes], deviation in P of a unit of each
        self.slope = torch.where(ws[:, self.rows] < 0, P_SLOPE, 1.0)  # [N, rows, w_dim], of P over W at the code
        num = len(self.rows)
        cov = torch.full((num, num), config.together) + (1 - config.together) * torch.eye(num)
        self.mixing = torch.linalg.cholesky(cov).to(ws)  # rows that move alike are likelier

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.ws), len(self.rows), self.axes.shape[1]

    def codes(self, u: Tensor) -> Tensor:
        """Return ws [N, num_ws, w_dim] after the moves."""
        step = torch.einsum("rs,nsk,wk->nrw", self.mixing, u, self.axes) / self.slope
        moved = self.ws.clone()
        moved[:, self.rows] = self.ws[:, self.rows] + step
        return moved


@dataclass(frozen=True)
class _Render:
    """The pictures and readings of moves, by a generator with the people's own noise."""

    G: Generator
    face_net: FaceNet
    moves: _Moves
    options: Mapping[str, Any]

    def __call__(self, u: Tensor) -> tuple[Tensor, Reading]:
        img = self.G.synthesis(self.moves.codes(u), noise_mode="const", **self.options)
        return img, read(self.face_net, img)


def _first_move(render: _Render, wanted: Tensor, config: ExpressionConfig) -> Tensor:
    """The likeliest moves u that bring the expression to what is wanted and leave the pose, by the slopes at 0."""
    u = torch.zeros(render.moves.shape, device=wanted.device).requires_grad_()
    _, now = render(u)
    values = torch.cat([now.expression[:, MOVING], now.pose], dim=1)  # [N, M]
    slopes = [torch.autograd.grad(one.sum(), u, retain_graph=True)[0].flatten(1) for one in values.unbind(1)]
    jacobian = torch.stack(slopes, dim=1)  # [N, M, rows * axes]
    variance = torch.full_like(values[0], config.tolerance**2).detach()
    variance[-3:] = config.pose_tolerance_deg**2
    missing = torch.cat([wanted[:, MOVING], now.pose], dim=1).detach() - values.detach()
    gain = torch.linalg.solve(jacobian @ jacobian.mT + variance.diag(), missing[..., None])
    return (jacobian.mT @ gain).view_as(u).detach()


@dataclass
class _Best:
    """The best moves so far of every face, and the terms [N] that they have."""

    u: Tensor
    score: Tensor
    terms: dict[str, Tensor]

    def take(self, u: Tensor, score: Tensor, terms: Mapping[str, Tensor]) -> None:
        better = score < self.score
        self.score = torch.where(better, score, self.score)
        self.u = torch.where(better[:, None, None], u, self.u)
        self.terms = {name: torch.where(better, value, self.terms.get(name, value)) for name, value in terms.items()}


def _descend(render: _Render, start: Tensor, wanted: Tensor, config: ExpressionConfig, on_step: Sink) -> _Best:
    """Improve moves by Adam, whose rate falls along a cosine."""
    with torch.no_grad():
        img_before, before = render(torch.zeros_like(start))
    outside = 1 - region(img_before.shape[-1]).to(img_before)
    best = _Best(start, torch.full([len(start)], math.inf, device=start.device), {})
    u = start.clone().requires_grad_()
    adam = torch.optim.Adam([u], lr=config.lr)
    for step in range(config.num_steps + 1):
        img, now = render(u)
        terms = {
            "expression": distance(now.expression, wanted),
            "identity": identity_distance(now.identity, before.identity),
            "pose": ((now.pose - before.pose) / 10).square().mean(1),
            "move": u.square().mean((1, 2)),
            "outside": ((img - img_before) * outside).abs().mean((1, 2, 3)),
        }
        score = torch.stack([getattr(config, f"{name}_weight") * value for name, value in terms.items()]).sum(0)
        best.take(u.detach().clone(), score.detach(), {name: value.detach() for name, value in terms.items()})
        on_step(Step("express", step, config.num_steps, {"loss": float(best.score.mean())}))
        if step < config.num_steps:
            adam.param_groups[0]["lr"] = config.lr * (0.5 + 0.5 * math.cos(math.pi * step / config.num_steps))
            (u.grad,) = torch.autograd.grad(score.sum(), u)
            adam.step()
    return best


def express(
    G: Generator,
    found: Sequence[Inversion],
    wanted: Tensor,
    *,
    face_net: FaceNet,
    stats: LatentStats,
    config: ExpressionConfig | None = None,
    on_step: Sink = ignore,
) -> list[Inversion]:
    """Give faces other expressions.

    Args:
        G: the generator.
        found: the faces' codes.
        wanted: [N, 32] expressions, as `wanted_of` gives them; the columns of `MOVING` count.
        face_net: that reads them.
        stats: of the generator.
        config: settings.
        on_step: hears of every step.

    Returns:
        The same faces with other codes; their `losses` are the terms of the descent, unweighted.

    Raises:
        InputError: expressions of another number of faces.
    """
    config = config or ExpressionConfig()
    if wanted.shape != (len(found), len(EXPRESSIONS)):
        raise InputError(f"expressions must be [{len(found)}, {len(EXPRESSIONS)}], got {list(wanted.shape)}")
    if len(found) > 1 and any(one.changes or len(one.noise) != len(found[0].noise) for one in found):
        return [
            express(G, [one], w[None], face_net=face_net, stats=stats, config=config, on_step=on_step)[0]
            for one, w in zip(found, wanted, strict=True)
        ]
    own = personal(G, found[0].changes) if found[0].changes else G
    device = G.w_avg.device
    ws = torch.stack([one.ws for one in found]).to(device)
    noise = [torch.stack(maps)[:, None].to(device).float() for maps in zip(*(one.noise for one in found), strict=True)]
    render = _Render(own, face_net, _Moves(ws, stats.to(device), config), {"noise": noise} if noise else {})
    with torch.no_grad():
        _, before = render(torch.zeros(render.moves.shape, device=device))
    goal = before.expression.lerp(wanted.to(device), config.overshoot).clamp(0, 1)
    best = _descend(render, _first_move(render, goal, config), goal, config, on_step)
    codes = render.moves.codes(best.u)
    return [
        replace(one, ws=code, losses={name: float(value[i]) for name, value in best.terms.items()})
        for i, (one, code) in enumerate(zip(found, codes, strict=True))
    ]


def held(img: Tensor, before: Tensor) -> Tensor:
    """Keep of img [N, 3, H, H] what lies in `region`, and all else as it was before."""
    return before + region(img.shape[-1]).to(img) * (img - before)


def along(ws: Tensor, direction: Direction | StyleDirection, move: RowMove) -> Tensor:
    """Move ws [N, num_ws, w_dim] as a published preset says: psi times weight long on its rows, and nothing is held.

    Raises:
        InputError: the direction moves channels of styles, not rows.

    Source: `EDIT_PRESETS`, whose lengths are those of directions of length 1.
    """
    if isinstance(direction, StyleDirection):
        raise InputError("this direction moves channels of styles, not rows", hint="leave out the preset")
    vector = direction.vector if direction.vector.ndim == 1 else direction.vector.mean(0)
    moved = ws.clone()
    moved[:, move.rows(ws.shape[1])] += move.psi * move.weight * (vector / vector.norm()).to(ws)
    return moved
