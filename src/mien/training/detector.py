"""Train the face detector on mosaics of photos, then its refiner.

Each cell of a level is a face, nothing, or not asked: faces that are too small, too blurred or mostly cut off are
neither right nor wrong. The score learns how well the box fits, so that it ranks the boxes too.

Source: Tian et al. 2019 (FCOS: cells and levels), arXiv:1904.01355; Li et al. 2020 (quality focal loss), Eq. 3,
arXiv:2006.04388; Rezatofighi et al. 2019 (generalised IoU), arXiv:1902.09630.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import InputError
from mien.nets.detector import Cells, Detector, Predictions, cells, fold_norm, giou, iou
from mien.nets.precision import dtype_of
from mien.nets.refiner import Refiner
from mien.report import Sink, Step, ignore
from mien.training.mosaics import FACE, UNSURE, Mosaics, Targets, load_scenes
from mien.training.refiner import propose, refiner_loss
from mien.training.resume import Origin, load_state, save_state, write_options
from mien.training.settings import fixed_settings, require_above, require_least, require_share

__all__ = ["Assignment", "DetectorConfig", "assign", "detector_loss", "learning_rate", "train"]

LEVEL_SIZES = {8: (0.0, 56.0), 16: (40.0, 112.0), 32: (80.0, math.inf)}  # Sides of the faces of each level, px.
POSITIVE_RADIUS, UNSURE_RADIUS = 1.0, 1.5  # Cells this near to a face's middle, in strides, are it, or are not asked.
POINT_BLUR = 0.02  # Distance of the points, in sides of the box, under which their loss turns quadratic.

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Settings of `train`."""

    num_steps: int = 3000  # Optimiser steps of the detector.
    num_refiner_steps: int = 3200  # Optimiser steps of the refiner, after them.
    batch_size: int = 8  # Mosaics in a step.
    size_px: int = 256  # Side of a mosaic, a multiple of 32.
    lr: float = 1.5e-3  # Highest learning rate of AdamW, reached after `warmup_steps`, falling along a cosine.
    refiner_lr: float = 2e-3  # The same for the refiner.
    warmup_steps: int = 200
    weight_decay: float = 5e-4
    box_weight: float = 2.0  # Weight of the generalised IoU loss.
    points_weight: float = 15.0  # Weight of the distance of the points, in sides of the box.
    negative_shares: tuple[float, float] = (0.12, 0.4)  # Tiles without a face, for the detector and for the refiner.
    num_drawings: int = 600  # Drawn tiles without a face.
    num_proposals: int = 64  # Right and wrong proposals, each at most so many, in a step of the refiner.
    ema_decay: float = 0.998  # Of the weights that are kept.
    save_steps: int = 250  # Steps between two saved states.
    precision: str = "bf16"  # bf16 or fp32.
    seed: int = 0

    def __post_init__(self) -> None:
        dtype_of(self.precision)
        require_least(self, 1, "num_steps", "num_refiner_steps", "batch_size", "num_proposals", "save_steps")
        require_least(self, 0, "seed", "warmup_steps", "weight_decay", "num_drawings", "box_weight", "points_weight")
        require_above(self, 0, "lr", "refiner_lr")
        require_share(self, "ema_decay")
        if len(self.negative_shares) != 2 or not all(0 <= share <= 1 for share in self.negative_shares):
            raise InputError(f"negative_shares must be two shares from 0 to 1, got {self.negative_shares}")
        if self.size_px < 64 or self.size_px % 32:
            raise InputError(f"size_px must be a multiple of 32 from 64 up, got {self.size_px}")

    def fixed(self) -> dict[str, Any]:
        """The settings that may not change within a run."""
        return fixed_settings(self, free=("num_steps", "num_refiner_steps", "save_steps", "precision"))


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


def learning_rate(step: int, *, highest: float, warmup_steps: int, num_steps: int) -> float:
    """Return the learning rate of `step`: a linear rise, then half a cosine down to a hundredth."""
    if step < warmup_steps:
        return highest * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return highest * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


@torch.no_grad()
def _average(kept: nn.Module, net: nn.Module, decay: float) -> None:
    for old, new in zip(kept.state_dict().values(), net.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


@dataclass(frozen=True, kw_only=True)
class _Stage(Generic[Net]):
    """How one network learns: `losses` of (network, step, img, targets) are its parts and their sum `loss`."""

    name: str
    losses: Callable[[Net, int, Tensor, Targets], dict[str, Tensor]]
    first_batch: int
    num_steps: int
    lr: float


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What both stages share."""

    config: DetectorConfig
    folder: Path
    origin: Origin
    device: torch.device
    on_step: Sink


def _learn(run: _Run, stage: _Stage[Net], net: Net, mosaics: Mosaics) -> Net:
    """Train `net` from where <stage>.pt stands, and return the running average of its weights."""
    config, device = run.config, run.device
    net.to(device)
    kept = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=stage.lr, weight_decay=config.weight_decay)
    first, state_path = 0, run.folder / f"{stage.name}.pt"
    if (state := load_state(state_path, run.origin, device)) is not None:
        net.load_state_dict(state["net"])
        kept.load_state_dict(state["kept"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    net.train()
    with ThreadPoolExecutor(1) as ahead, open(run.folder / f"{stage.name}.jsonl", "a", encoding="utf-8") as stats:
        coming = ahead.submit(mosaics.batch, stage.first_batch + first)
        for step in range(first, stage.num_steps):
            img, targets = coming.result()
            img, targets = img.to(device), Targets(*(part.to(device) for part in targets))
            coming = ahead.submit(mosaics.batch, stage.first_batch + step + 1)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(
                    step, highest=stage.lr, warmup_steps=config.warmup_steps, num_steps=stage.num_steps
                )
            losses = stage.losses(net, step, img, targets)
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            _average(kept, net, min(config.ema_decay, (1 + step) / (10 + step)))
            scalars = {name: float(value.detach()) for name, value in losses.items()}
            stats.write(json.dumps({"step": step, **scalars}) + "\n")
            if (step + 1) % config.save_steps == 0 or step + 1 == stage.num_steps:
                stats.flush()
                state = {"net": net.state_dict(), "kept": kept.state_dict(), "step": step + 1}
                save_state(state | {"optimizer": optimizer.state_dict()}, state_path, run.origin)
            run.on_step(Step(stage.name, step + 1, stage.num_steps, scalars))
    return kept.eval()


def train(
    config: DetectorConfig, data: Path, run_dir: Path, on_step: Sink = ignore, *, device: torch.device | str = "cpu"
) -> Detector:
    """Train a detector, then the refiner on its proposals; the same call goes on where a killed run stopped.

    Args:
        config: settings.
        data: `scenes250.zip` with `scenes250.csv` beside it.
        run_dir: folder for options.json and the states and losses of both stages; decoded pictures are kept in the
            folder above.
        on_step: hears of every step; may raise `Cancelled`.
        device: where to train; the mosaics are made on the processor.

    Returns:
        The averages of the weights, with normalisation folded in: ready to be saved.

    Raises:
        InputError: no data there, or the folder holds a run with other settings or data.
    """
    torch.manual_seed(config.seed)
    pictures, table = load_scenes(data, run_dir.parent / "cache")
    run = _Run(
        config=config,
        folder=run_dir,
        origin=Origin(config.fixed(), pictures.digest),
        device=torch.device(device),
        on_step=on_step,
    )
    sizes = dict(batch_size=config.batch_size, size_px=config.size_px, num_drawings=config.num_drawings)
    dense, sparse = (
        Mosaics(pictures, table, negative_share=share, seed=config.seed, **sizes) for share in config.negative_shares
    )
    write_options(config, run_dir, run.origin, {"pictures": len(pictures)})
    at = cells(config.size_px, config.size_px, device=run.device)

    def autocast() -> torch.autocast:
        return torch.autocast(run.device.type, torch.bfloat16, enabled=config.precision == "bf16")

    def find(net: Detector, _step: int, img: Tensor, targets: Targets) -> dict[str, Tensor]:
        with autocast():
            found = net(img)
        return detector_loss(found, targets, at, config)

    stage = _Stage(name="detector", losses=find, first_batch=0, num_steps=config.num_steps, lr=config.lr)
    detector = fold_norm(_learn(run, stage, Detector(norm=True), dense))

    def refine(net: Refiner, step: int, img: Tensor, targets: Targets) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1_000_003 * config.seed + step)
        with torch.no_grad(), autocast():
            found = detector(img)
        proposals = propose(found, img, targets, most=config.num_proposals, generator=generator)
        with autocast():
            said = net(proposals.crops)
        return refiner_loss(said, proposals)

    closer = _Stage(
        name="refiner",
        losses=refine,
        first_batch=config.num_steps,
        num_steps=config.num_refiner_steps,
        lr=config.refiner_lr,
    )
    refiner = _learn(run, closer, Refiner(**detector.init_kwargs["refiner_kwargs"]), sparse)
    detector.refiner.load_state_dict(refiner.state_dict())
    return detector.cpu()
