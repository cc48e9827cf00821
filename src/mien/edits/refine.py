"""Refine a direction by descent on renders: the wanted change, nothing else, and the same face.

A linear model of attributes knows nothing of who the face is, and little of what happens at the far end of a move. The
direction goes on from there: one vector for each row, shared by all faces, moved so that at strengths of -2 and 2 the
mean change of its attribute is what the strength says, that of the others is none, and the identity stays. The vectors
are whitened by the covariance of w, and their length there is what the move costs in likelihood. What the linear model
promises of the move has to stay as well: else descent finds ways to please the scorer that no two people differ by.

Source: latent directions learnt through the generator: Jahanian et al. 2020, Eq. 1, arXiv:1907.07171.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mien.edits.directions import Direction
from mien.edits.probe import Scorer, Scores
from mien.nets.generator import Generator

__all__ = ["RefineConfig", "refine"]

FLOOR = 0.05  # of the covariance, share of the mean variance of w


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """Settings of `refine`."""

    identity_weight: float = 3.0  # of one minus the cosine
    promise_weight: float = 3.0  # of the squared share of the linear model's promise that is lost
    other_weight: float = 1.0  # of the squared changes of other attributes, in standard deviations per unit
    prior_weight: float = 0.3  # of the mean square length of the whitened vectors
    lr: float = 0.2  # of Adam, share of the root mean square of the whitened vectors
    strength: float = 2.0
    num_faces: int = 8  # of each step, moved one way and the other in turn
    largest_shift: float = 1 / 32  # of the pictures before they are scored, so that no pixel's place matters
    seed: int = 0


def _slopes(after: Scores, before: Scores, strength: Tensor, spread: Mapping[str, float]) -> dict[str, Tensor]:
    """Mean change per unit of strength [N] of each attribute, in standard deviations."""
    return {
        name: ((after.attributes[name] - before.attributes[name]) / strength).mean() / std
        for name, std in spread.items()
    }


def refine(
    G: Generator,
    scorer: Scorer,
    ws: Tensor,
    direction: Direction,
    name: str,
    keep: Sequence[str],
    spread: Mapping[str, float],
    slope: Tensor,
    num_steps: int,
    config: RefineConfig | None = None,
) -> Direction:
    """Return a direction that does the same and keeps identities better, with a vector for each of its rows.

    Args:
        G: the generator.
        scorer: measures pictures; gradients go through it.
        ws: codes of faces, [N, num_ws, w_dim].
        direction: where to begin, of about the right length.
        name: of its attribute.
        keep: names of the attributes to leave as they are.
        spread: standard deviation of every attribute.
        slope: [w_dim], by which the linear model says that the attribute grows with w.
        num_steps: of descent.
        config: settings.
    """
    config = config or RefineConfig()
    random = torch.Generator().manual_seed(config.seed)
    w = ws.mean(dim=1)
    cov = (w - w.mean(0)).T.cov()
    root = torch.linalg.cholesky(cov + FLOOR * cov.diagonal().mean() * torch.eye(len(cov)).to(cov))
    start = direction.vector.to(ws).expand(len(direction.layers), -1)
    promised = float((start @ slope.to(ws)).sum())
    white = torch.linalg.solve_triangular(root, start.T, upper=False).T.contiguous().requires_grad_(True)
    rate = config.lr * float(white.detach().square().mean().sqrt())
    optimiser = torch.optim.Adam([white], lr=rate)
    strength = config.strength * torch.tensor([1.0, -1.0]).repeat(config.num_faces)[: config.num_faces].to(ws)
    kept = {other: spread[other] for other in keep}
    largest = round(config.largest_shift * G.img_resolution)
    for step in range(num_steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, 2 * (1 - step / num_steps))
        faces = ws[torch.randint(len(ws), (config.num_faces,), generator=random)]
        shift = torch.randint(-largest, largest + 1, (2,), generator=random).tolist()

        def seen(codes: Tensor, shift: Sequence[int] = shift) -> Scores:
            return scorer(G.synthesis(codes, noise_mode="const").clamp(-1, 1).roll(tuple(shift), (2, 3)))

        with torch.no_grad():
            before = seen(faces)
        moved = faces.clone()
        moved[:, list(direction.layers)] += strength[:, None, None] * (white @ root.T)
        after = seen(moved)
        slopes = _slopes(after, before, strength, {name: spread[name], **kept})
        loss = (slopes[name] - 1).square() + config.prior_weight * white.square().sum(dim=1).mean()
        loss = loss + config.other_weight * sum(slopes[other].square() for other in kept)
        kept_share = (white @ root.T @ slope.to(ws)).sum() / promised
        loss = loss + config.promise_weight * (1 - kept_share).square()
        loss = loss + config.identity_weight * (1 - (after.identity * before.identity).sum(dim=1).mean())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return replace(direction, vector=(white @ root.T).detach().cpu())
