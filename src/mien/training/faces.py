"""Training of the face network: identity, pose, expression, age and gender from two sets of labelled pictures.

Identity is learnt twice over: by a softmax with a margin over all people (CosFace, Wang et al. 2018) and by contrast
within the batch (Khosla et al. 2020), where each picture comes with another of the same person (`face_views.Views`).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import InputError
from mien.metrics import verification
from mien.nets.features import EXPRESSIONS, SMILE, WINDOW, FaceNet, FaceReading, folded
from mien.nets.precision import dtype_of
from mien.report import Sink, Step, ignore
from mien.training.data import PictureSet, cap_per_person, check_columns, is_held_out, load_pictures
from mien.training.distortions import Placement, place
from mien.training.face_views import (
    Labels,
    Views,
    age_labels,
    ages_frame,
    expression_labels,
    gender_labels,
    pose_labels,
)
from mien.training.resume import Origin, load_state, save_state, write_options
from mien.training.settings import fixed_settings, require_above, require_least, require_share

__all__ = ["FaceTrainConfig", "contrast", "evaluate", "margin_softmax", "train_faces"]

PICTURE_PX = 128


@dataclass(frozen=True, kw_only=True)
class FaceTrainConfig:
    """Settings of `train_faces`."""

    channels: tuple[int, ...] = (32, 64, 128, 256)  # Width of each stage of the network.
    num_blocks: tuple[int, ...] = (0, 1, 2, 2)  # Residual blocks of each stage.
    num_steps: int = 3000  # Optimiser steps.
    faces_per_step: int = 72  # Pictures with identity, pose and expression; each comes with a partner.
    ages_per_step: int = 24  # Pictures with age and gender; each comes twice.
    most_per_person: int = 20  # Pictures used of one person.
    lr: float = 2e-3  # Highest learning rate of AdamW.
    weight_decay: float = 0.05  # Of AdamW.
    warmup_steps: int = 300  # Steps over which the learning rate and the margin grow.
    decay_share: float = 0.6  # Share of the steps, at the end, over which the learning rate falls to 0.
    margin: float = 0.2  # Of the cosine to one's own class.
    scale: float = 24.0  # Of the cosines in the softmax.
    temperature: float = 0.1  # Of the contrast within the batch.
    contrast_weight: float = 1.0
    pose_weight: float = 4.0
    expression_weight: float = 3.0
    age_weight: float = 1.5
    gender_weight: float = 0.5
    ema_steps: float = 200.0  # Half-life of the mean of the weights that is kept for use.
    precision: str = "fp32"  # bf16 autocast is quicker where the hardware has it.
    use_compile: bool = False  # torch.compile: needs a compiler.
    save_steps: int = 500  # Steps between two saved states.
    seed: int = 0

    def __post_init__(self) -> None:
        dtype_of(self.precision)
        sizes = (*self.channels, *(count + 1 for count in self.num_blocks))
        if len(self.channels) != len(self.num_blocks) or not sizes or min(sizes) < 1:
            what = f"channels and num_blocks are {self.channels} and {self.num_blocks}"
            raise InputError(what, hint="give a width above 0 and a number of blocks for each stage")
        require_least(self, 1, "num_steps", "faces_per_step", "ages_per_step", "most_per_person", "warmup_steps")
        require_least(self, 1, "save_steps")
        require_above(self, 0, "lr", "decay_share", "scale", "temperature", "ema_steps")
        weights = ("contrast_weight", "pose_weight", "expression_weight", "age_weight", "gender_weight")
        require_least(self, 0, "seed", "weight_decay", "margin", *weights)
        require_share(self, "decay_share")

    def fixed(self) -> dict[str, Any]:
        """The settings that may not change within a run."""
        return fixed_settings(self, free=("num_steps", "save_steps", "precision", "use_compile"))


def margin_softmax(identity: Tensor, centres: Tensor, classes: Tensor, *, margin: float, scale: float) -> Tensor:
    """Return the mean cross entropy where the cosine to one's own class must win by `margin`.

    Args:
        identity: unit vectors [N, D].
        centres: one row for each class [C, D], any length.
        classes: int64 [N].
        margin: subtracted from the cosine to one's own class.
        scale: of the cosines before the softmax.

    Source: Wang et al. 2018, Eq. 4, arXiv:1801.09414.
    """
    cosines = identity @ F.normalize(centres, dim=1).T
    cosines = cosines - margin * F.one_hot(classes, len(centres))
    return F.cross_entropy(scale * cosines, classes)


def contrast(identity: Tensor, classes: Tensor, *, temperature: float) -> Tensor:
    """Return the supervised contrastive loss of unit vectors [N, D] with classes [N], each occurring at least twice.

    Args:
        identity: unit vectors [N, D].
        classes: int64 [N].
        temperature: of the softmax over the other vectors of the batch.

    Source: Khosla et al. 2020, Eq. 2, arXiv:2004.11362.
    """
    itself = torch.eye(len(identity), dtype=torch.bool, device=identity.device)
    logits = (identity @ identity.T / temperature).masked_fill(itself, -torch.inf)
    log_p = F.log_softmax(logits, 1).masked_fill(itself, 0)
    positive = (classes[:, None] == classes) & ~itself
    return -((log_p * positive).sum(1) / positive.sum(1)).mean()


def face_losses(
    reading: FaceReading, centres: Tensor, labels: Labels, config: FaceTrainConfig, *, margin: float
) -> dict[str, Tensor]:
    """Return every loss, weighted, by name."""
    num = len(labels.pose)
    identity = reading.identity
    return {
        "margin": margin_softmax(identity, centres, labels.identity, margin=margin, scale=config.scale),
        "contrast": config.contrast_weight * contrast(identity, labels.identity, temperature=config.temperature),
        "pose": config.pose_weight * F.smooth_l1_loss(reading.pose[:num] / 30, labels.pose / 30, beta=0.1),
        "expression": config.expression_weight * F.mse_loss(reading.expression[:num], labels.expression) * 10,
        "age": config.age_weight * F.smooth_l1_loss(reading.age[num:] / 20, labels.age / 20, beta=0.1),
        "gender": config.gender_weight * F.binary_cross_entropy(reading.gender[num:], labels.gender),
    }


def learning_rate(step: int, config: FaceTrainConfig) -> float:
    """Grow linearly, stay, then fall to 0 along a cosine."""
    left = (config.num_steps - step) / (config.decay_share * config.num_steps)
    return config.lr * min(1.0, (step + 1) / config.warmup_steps) * 0.5 * (1 - math.cos(math.pi * min(1.0, left)))


@torch.no_grad()
def follow(mean: nn.Module, net: nn.Module, keep: float) -> None:
    """Move every number of `mean` towards `net`'s, keeping the share `keep` of what it was."""
    for old, new in zip(mean.state_dict().values(), net.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)


class _Learner:
    """The network, the mean of its weights, the classes' centres, and one step of their training."""

    def __init__(self, config: FaceTrainConfig, num_classes: int, device: torch.device) -> None:
        self.config, self.device = config, device
        torch.manual_seed(config.seed)
        net = FaceNet(channels=config.channels, num_blocks=config.num_blocks)
        self.net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.centres = nn.Parameter((0.1 * torch.randn(num_classes, net.init_kwargs["embedding_dim"])).to(device))
        self.optimiser = torch.optim.AdamW(
            [{"params": self.net.parameters()}, {"params": [self.centres], "weight_decay": 0.0}],
            lr=config.lr,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.net_ema = copy.deepcopy(self.net)
        self.read = torch.compile(self.net.read) if config.use_compile else self.net.read
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on exactly."""
        return {
            "net": self.net.state_dict(),
            "net_ema": self.net_ema.state_dict(),
            "centres": self.centres.data,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.net.load_state_dict(state["net"])
        self.net_ema.load_state_dict(state["net_ema"])
        self.centres.data.copy_(state["centres"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def train_step(self, img: Tensor, labels: Labels) -> dict[str, Tensor]:
        """Learn from one batch, and return its losses."""
        config = self.config
        img = img.to(self.device, memory_format=torch.channels_last)
        labels = Labels(*(label.to(self.device) for label in labels))
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, config)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            reading = self.read(img)
        margin = config.margin * min(1.0, self.step / config.warmup_steps)
        losses = face_losses(reading, self.centres, labels, config, margin=margin)
        self.optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.optimiser.step()
        self.step += 1
        follow(self.net_ema, self.net, 0.5 ** (1 / min(config.ema_steps, 0.1 * self.step)))
        return losses


def _load(faces: Path, ages: Path, cache: Path | None, *, held_out: bool) -> tuple[PictureSet, PictureSet]:
    """Return both sets, either of the people who are kept out of training or of all the others."""
    face_set, age_set = (load_pictures(path, size_px=PICTURE_PX, cache=cache) for path in (faces, ages))
    for part, source, texts, numbers in (
        (face_set, faces, ["identity"], ["sharpness", "yaw_deg", "pitch_deg", *EXPRESSIONS]),
        (age_set, ages, ["gender"], ["age"]),
    ):
        check_columns(part.labels, source.with_suffix(".csv"), texts=texts, numbers=numbers)
    people = [str(name) for name in face_set.labels["identity"]]
    return (
        face_set.select(np.array([is_held_out(name) == held_out for name in people])),
        age_set.select(np.array([is_held_out(name) == held_out for name in age_set.names])),
    )


def train_faces(
    config: FaceTrainConfig,
    *,
    faces: Path,
    ages: Path,
    run_dir: Path,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
    on_step: Sink = ignore,
) -> FaceNet:
    """Train the face network and return it, folded; the same call goes on with a run that was stopped.

    A run may be made longer or shorter on the way; what else may differ from the run that was stopped is not in
    `FaceTrainConfig.fixed`.

    Args:
        config: the run's settings.
        faces: zip or folder of FFHQ crops with a table of identities, head poses and blendshapes.
        ages: zip or folder of tight face crops with a table of ages and genders.
        run_dir: folder for options.json and state.pt.
        cache: where decoded pictures are kept.
        device: where the network is trained; the views are made on the processor, the network returned is there too.
        on_step: hears every step's losses.

    Raises:
        InputError: data are missing, or the state in `run_dir` belongs to other settings.
    """
    face_set, age_set = _load(faces, ages, cache, held_out=False)
    face_set = face_set.select(
        cap_per_person(face_set.labels["identity"], config.most_per_person, prefer=face_set.labels["sharpness"])
    )
    views = Views(
        face_set,
        age_set,
        faces_per_step=config.faces_per_step,
        ages_per_step=config.ages_per_step,
        seed=config.seed,
    )
    state_path, origin = run_dir / "state.pt", Origin(config.fixed(), [face_set.digest, age_set.digest])
    learner = _Learner(config, views.num_classes, torch.device(device))
    if (state := load_state(state_path, origin, device)) is not None:
        learner.load_state_dict(state)
    write_options(config, run_dir, origin, {"pictures": [len(face_set), len(age_set)]})
    while learner.step < config.num_steps:
        losses = learner.train_step(*views.at(learner.step))
        if learner.step % config.save_steps == 0 or learner.step == config.num_steps:
            save_state(learner.state_dict(), state_path, origin)
        scalars = {name: loss.item() for name, loss in losses.items()}
        on_step(Step("faces", learner.step, config.num_steps, scalars))
    return folded(learner.net_ema.cpu())


def evaluate(
    net: FaceNet, *, faces: Path, ages: Path, side_px: int = PICTURE_PX, cache: Path | None = None
) -> dict[str, float]:
    """Measure `net` on the people who were kept out of training; see the keys.

    Verification takes all pairs of one person (at most 6 pictures each) and as many pairs of two people.

    Args:
        net: the network.
        faces: as for `train_faces`.
        ages: as for `train_faces`.
        side_px: size to which the aligned pictures are brought before they are read.
        cache: as for `train_faces`.
    """
    face_set, age_set = _load(faces, ages, cache, held_out=True)
    face_img = face_set.pixels.float() / 127.5 - 1
    if side_px != PICTURE_PX:
        face_img = F.interpolate(face_img, (side_px, side_px), mode="bilinear", antialias=True)
    age_img = age_set.pixels.float() / 127.5 - 1
    num = len(age_img)
    still = Placement(torch.zeros(num, dtype=torch.bool), torch.zeros(num), torch.ones(num), torch.zeros(num, 2))
    with torch.no_grad():
        faces_read = net.eval()(face_img)
        ages_read = net.read(place(age_img, still, frame=ages_frame(num), size_px=WINDOW[2]))
    pose_error = (faces_read.pose - pose_labels(face_set)).abs().mean(0)
    shown = expression_labels(face_set)
    smile = shown[:, SMILE].mean(1)
    varied = shown.std(0) > 0.02
    correlations = [
        float(torch.corrcoef(torch.stack([faces_read.expression[:, i], shown[:, i]]))[0, 1])
        for i in varied.nonzero()[:, 0].tolist()
    ]
    similarity, is_same = _pairs(faces_read.identity, face_set.labels["identity"])
    accuracy, threshold = verification(similarity, is_same)
    return {
        "verification_accuracy": accuracy,
        "verification_threshold": threshold,
        "same_cosine": float(similarity[is_same].mean()),
        "other_cosine": float(similarity[~is_same].mean()),
        "yaw_error_deg": float(pose_error[0]),
        "pitch_error_deg": float(pose_error[1]),
        "expression_error": float((faces_read.expression - shown).abs().mean()),
        "expression_correlation": float(np.mean(correlations)),
        "smile_correlation": float(torch.corrcoef(torch.stack([faces_read.smile, smile]))[0, 1]),
        "age_error_years": float((ages_read.age - age_labels(age_set)).abs().mean()),
        "gender_accuracy": float(((ages_read.gender > 0.5) == (gender_labels(age_set) > 0.5)).float().mean()),
        "faces_age_median": float(faces_read.age.median()),
    }


def _pairs(identity: Tensor, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and `is_same` of all pairs of one person and as many pairs of two people."""
    kept = np.flatnonzero(cap_per_person(names, 6))
    first, second = np.triu_indices(len(kept), 1)
    same = names[kept[first]] == names[kept[second]]
    others = np.random.default_rng(0).choice(np.flatnonzero(~same), same.sum(), replace=False)
    chosen = np.random.default_rng(1).permutation(np.concatenate([np.flatnonzero(same), others]))
    vectors = identity.numpy()[kept]
    return (vectors[first[chosen]] * vectors[second[chosen]]).sum(1), same[chosen]
