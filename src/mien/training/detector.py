"""Train the face detector on mosaics of photos.

Each cell of a level is a face, nothing, or not asked: faces that are too small, too blurred or mostly cut off are
neither right nor wrong. The score learns how well the box fits, so that it ranks the boxes too.

Source: Tian et al. 2019 (FCOS: cells and levels), arXiv:1904.01355; Li et al. 2020 (quality focal loss), Eq. 3,
arXiv:2006.04388; Rezatofighi et al. 2019 (generalised IoU), arXiv:1902.09630.
"""

from __future__ import annotations

import dataclasses
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.atomic import replacing, write_text
from mien.errors import InputError
from mien.nets.detector import Cells, Detector, Predictions, cells, fold_norm, giou, iou
from mien.report import Sink, Step, ignore
from mien.training.mosaics import FACE, UNSURE, Mosaics, Targets, load_scenes

__all__ = ["Assignment", "DetectorConfig", "assign", "detector_loss", "learning_rate", "train"]

LEVEL_SIZES = {8: (0.0, 56.0), 16: (40.0, 112.0), 32: (80.0, math.inf)}  # Sides of the faces of each level, px.
POSITIVE_RADIUS, UNSURE_RADIUS = 1.0, 1.5  # Cells this near to a face's middle, in strides, are it, or are not asked.
POINT_BLUR = 0.02  # Distance of the points, in sides of the box, under which their loss turns quadratic.


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Settings of `train`."""

    num_steps: int = 6000  # Optimiser steps.
    batch_size: int = 16  # Mosaics in a step.
    size_px: int = 256  # Side of a mosaic, a multiple of 32.
    lr: float = 2e-3  # Highest learning rate of AdamW, reached after `warmup_steps`, falling along a cosine.
    warmup_steps: int = 200
    weight_decay: float = 5e-4
    box_weight: float = 2.0  # Weight of the generalised IoU loss.
    points_weight: float = 15.0  # Weight of the distance of the points, in sides of the box.
    ema_decay: float = 0.998  # Of the weights that are kept.
    snapshot_steps: int = 250  # Steps between two saved states.
    precision: str = "bf16"  # bf16 or fp32.
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.batch_size < 1:
            raise InputError(f"num_steps and batch_size must be at least 1, got {self.num_steps} and {self.batch_size}")
        if self.size_px < 64 or self.size_px % 32:
            raise InputError(f"size_px must be a multiple of 32 from 64 up, got {self.size_px}")
        if self.precision not in ("bf16", "fp32"):
            raise InputError(f"precision must be bf16 or fp32, got {self.precision!r}")


class Assignment(NamedTuple):
    """What each cell is to learn: `face` int64 [N, A], the face's row or -1; `asked` bool [N, A]."""

    face: Tensor
    asked: Tensor


def assign(targets: Targets, at: Cells) -> Assignment:
    """Give each face to the cells around its middle on the levels of its size.

    Cells in the ring around them, and all cells in a box of kind UNSURE, are not asked. A cell near to two faces takes
    the nearer one.

    Source: Tian et al. 2019, Sec. 3.1-3.2, arXiv:1904.01355.
    """
    boxes, kinds = targets.boxes[:, None], targets.kinds[:, None]  # [N, 1, M, ...] against cells [A, 1]
    spot, stride = at.centres[:, None], at.strides[:, None]
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1).sqrt()
    low = torch.tensor([LEVEL_SIZES[int(s)][0] for s in at.strides], device=stride.device)[:, None]
    high = torch.tensor([LEVEL_SIZES[int(s)][1] for s in at.strides], device=stride.device)[:, None]
    distance = (spot - (boxes[..., :2] + boxes[..., 2:]) / 2).abs().amax(-1) / stride  # [N, A, M]
    mine = (size >= low) & (size < high) & (kinds == FACE)
    inside = ((spot >= boxes[..., :2]) & (spot <= boxes[..., 2:])).all(-1)
    nearest, face = distance.masked_fill(~mine, math.inf).min(-1)  # [N, A]
    positive = nearest < POSITIVE_RADIUS
    unsure = (mine & (distance < UNSURE_RADIUS)).any(-1) | (inside & (kinds == UNSURE)).any(-1)
    return Assignment(torch.where(positive, face, -1), positive | ~unsure)


def detector_loss(found: Predictions, targets: Targets, at: Cells, config: DetectorConfig) -> dict[str, Tensor]:
    """Return the losses of score, box and points, and their weighted sum `loss`, each divided by the positive cells."""
    learn = assign(targets, at)
    n, a = (learn.face >= 0).nonzero(as_tuple=True)
    row = learn.face[n, a]
    boxes, points = targets.boxes[n, row], targets.points[n, row]
    side = (boxes[:, 2:] - boxes[:, :2]).prod(-1).sqrt()
    miss = (found.points[n, a] - points) / side[:, None, None]
    quality = torch.zeros_like(found.logits)
    quality[n, a] = iou(found.boxes[n, a], boxes).detach()
    focus = (found.logits.sigmoid() - quality).square().detach()
    score = focus * F.binary_cross_entropy_with_logits(found.logits, quality, reduction="none") * learn.asked
    count = max(len(row), 1)
    losses = {
        "score": score.sum() / count,
        "box": (1 - giou(found.boxes[n, a], boxes)).sum() / count,
        "points": F.smooth_l1_loss(miss, torch.zeros_like(miss), beta=POINT_BLUR, reduction="sum") / (10 * count),
    }
    losses["loss"] = losses["score"] + config.box_weight * losses["box"] + config.points_weight * losses["points"]
    return losses


def learning_rate(step: int, config: DetectorConfig) -> float:
    """Return the learning rate of `step`: a linear rise, then half a cosine down to a hundredth."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.num_steps - config.warmup_steps)
    return config.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


@torch.no_grad()
def _average(kept: Detector, net: Detector, decay: float) -> None:
    for old, new in zip(kept.state_dict().values(), net.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


def train(config: DetectorConfig, data: Path, run_dir: Path, on_step: Sink = ignore) -> Detector:
    """Train a detector; the same call goes on where a killed run stopped, to the same numbers.

    Args:
        config: settings.
        data: `scenes250.zip` with `scenes250.csv` beside it.
        run_dir: folder for options.json, stats.jsonl and state.pt; decoded pictures are kept in the folder above.
        on_step: hears of every step; may raise `Cancelled`.

    Returns:
        The average of the weights, with normalisation folded in: ready to be saved.
    """
    torch.manual_seed(config.seed)
    net = Detector(norm=True)
    kept = Detector(norm=True)
    kept.load_state_dict(net.state_dict())
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    first = 0
    write_text(json.dumps(dataclasses.asdict(config), indent=1), run_dir / "options.json")
    state_path = run_dir / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        net.load_state_dict(state["net"])
        kept.load_state_dict(state["kept"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    mosaics = Mosaics(
        *load_scenes(data, run_dir.parent / "cache"),
        batch_size=config.batch_size,
        size_px=config.size_px,
        seed=config.seed,
    )
    at = cells(config.size_px, config.size_px)
    net.train()
    with ThreadPoolExecutor(1) as ahead, open(run_dir / "stats.jsonl", "a", encoding="utf-8") as stats:
        coming = ahead.submit(mosaics.batch, first)
        for step in range(first, config.num_steps):
            img, targets = coming.result()
            coming = ahead.submit(mosaics.batch, step + 1)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
                found = net(img)
            losses = detector_loss(found, targets, at, config)
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            _average(kept, net, min(config.ema_decay, (1 + step) / (10 + step)))
            scalars = {name: float(value.detach()) for name, value in losses.items()}
            stats.write(json.dumps({"step": step, **scalars}) + "\n")
            if (step + 1) % config.snapshot_steps == 0 or step + 1 == config.num_steps:
                stats.flush()
                state = {"net": net.state_dict(), "kept": kept.state_dict(), "step": step + 1}
                with replacing(state_path) as part:
                    torch.save(state | {"optimizer": optimizer.state_dict()}, part)
            on_step(Step("detector", step + 1, config.num_steps, scalars))
    return fold_norm(kept)
