"""From pairs to a translator: pix2pix as it was published, and our own small student, by one loop.

Both learn from the same pairs. pix2pix: a U-Net and a discriminator of 70 px patches that sees both pictures, binary
cross entropy, L1 times 100, one pair a step, Adam. The student: L1 and the distance of face features, discriminators
at several scales that also lend it their maps, the person held to the photo's, photos made worse or sharper on the way
in, and the moving average of its weights.

A step is a function of (seed, step) and the state, so that a killed run ends with the same bits on a CPU.

Source: Isola et al. 2017, arXiv:1611.07004; several scales and matched features: Wang et al. 2018 (pix2pixHD), Sec. 3,
arXiv:1711.11585; least squares: Mao et al. 2017, arXiv:1611.04076; learning from a generator's pairs: Viazovetskyi et
al. 2020, arXiv:2003.03581.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.atomic import replacing
from mien.errors import InputError
from mien.images import grid, to_pil
from mien.losses import identity_distance, perceptual
from mien.nets.features import FaceNet
from mien.nets.pix2pix import NORMS, PatchDiscriminator, UnetGenerator
from mien.nets.precision import dtype_of
from mien.nets.student import Student
from mien.report import Sink, Step, ignore
from mien.training.data import Batches
from mien.training.pair_set import Pairs, cut_at_random, moved, sharpened, worsened
from mien.training.resume import Origin, load_state, save_state, write_options
from mien.training.settings import fixed_settings, require_above, require_least, require_share

__all__ = ["DISTILL_PRESETS", "DistillConfig", "Translator", "distill", "make_translator"]

Translator = UnetGenerator | Student
NETWORKS = ("unet", "student")
GANS = ("bce", "lsgan")
NUM_SHOWN, NUM_JUDGED, JUDGED_AT_ONCE = 6, 256, 32


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Settings of a run; the defaults are the student's."""

    network: str = "student"  # or unet, pix2pix's
    kimg: float = 400.0  # thousands of pairs that are shown
    batch_size: int = 16
    lr: float = 5e-4  # Adam's; straight down to nothing from the share `decay_from` of the run on
    lr_discriminator: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    decay_from: float = 0.3
    widths: tuple[int, ...] = (16, 32, 64, 128, 192)  # of the student's levels, and
    num_blocks: tuple[int, ...] = (0, 0, 1, 1, 2)  # their residual blocks
    ngf: int = 64  # maps of the U-Net's first level; it has as many levels as the side can be halved, at most 8
    norm: str = "batch"  # of U-Net and discriminator
    ndf: int = 32  # maps of the discriminator's first layer
    num_layers: int = 2  # its halvings: 3 see 70 px, 2 see 34 px
    num_scales: int = 2  # discriminators, each of half the side of the one before
    gan: str = "lsgan"
    gan_weight: float = 0.5
    discriminator_share: float = 0.5  # of its loss that it learns by
    l1_weight: float = 10.0
    perceptual_weight: float = 5.0  # distance of the face network's maps
    identity_weight: float = 1.0  # distance of the drawn person to the one that is shown, by the face network
    feature_weight: float = 5.0  # L1 between the discriminators' maps of drawing and target
    is_cut: bool = False  # enlarge and cut at random as pix2pix does, in place of small moves
    move_share: float = 0.3  # of pairs that are moved as far as alignment errs
    degrade_share: float = 0.4  # of people who get each kind of a worse camera
    sharpen_share: float = 0.5  # of people whose edges are raised: a generator's are softer than a camera's
    ema_kimg: float = 2.0  # half-life of the moving average that is kept; 0 keeps the weights themselves
    precision: str = "fp32"
    save_kimg: float = 10.0  # between two states, validations and sheets of samples
    seed: int = 0

    def __post_init__(self) -> None:
        dtype_of(self.precision)
        for name, known in (("network", NETWORKS), ("gan", GANS), ("norm", NORMS)):
            if getattr(self, name) not in known:
                raise InputError(f"no {name} named {getattr(self, name)!r}", hint=f"known: {', '.join(known)}")
        require_least(self, 1, "batch_size", "ngf", "ndf", "num_layers", "num_scales")
        weights = ("gan_weight", "l1_weight", "perceptual_weight", "identity_weight", "feature_weight")
        require_least(self, 0, *weights, "ema_kimg", "seed", "decay_from")
        require_above(self, 0, "kimg", "lr", "lr_discriminator", "save_kimg")
        require_share(self, "decay_from", "discriminator_share", "beta1", "beta2")
        require_share(self, "move_share", "degrade_share", "sharpen_share")
        if len(self.widths) != len(self.num_blocks) or min(self.widths, default=0) < 1 or min(self.num_blocks) < 0:
            raise InputError(f"widths {self.widths} and num_blocks {self.num_blocks} make no student")
        if not any(getattr(self, name) for name in weights):
            raise InputError("no term of the loss has a weight", hint="give one, say l1_weight=10")

    @property
    def num_steps(self) -> int:
        """How many batches are shown."""
        return max(1, round(self.kimg * 1000 / self.batch_size))

    @property
    def save_steps(self) -> int:
        """How many batches lie between two states."""
        return max(1, round(self.save_kimg * 1000 / self.batch_size))

    def fixed(self) -> dict[str, Any]:
        """The settings that may not change within a run."""
        return fixed_settings(self, free=("kimg", "save_kimg", "precision"))


PIX2PIX = DistillConfig(
    network="unet",
    batch_size=1,
    lr=2e-4,
    decay_from=0.5,
    ndf=64,
    num_layers=3,
    num_scales=1,
    gan="bce",
    gan_weight=1.0,
    l1_weight=100.0,
    perceptual_weight=0.0,
    identity_weight=0.0,
    feature_weight=0.0,
    is_cut=True,
    move_share=0.0,
    degrade_share=0.0,
    sharpen_share=0.0,
    ema_kimg=0.0,
)

DISTILL_PRESETS: Mapping[str, DistillConfig] = {"student": DistillConfig(), "pix2pix": PIX2PIX}
"""pix2pix is as published; 200 epochs of 2,000 pairs are kimg=400."""


# ---- Networks and losses --------------------------------------------------------------------------------------------


def make_translator(config: DistillConfig, side_px: int) -> Translator:
    """Build the network of a run on pairs of this side.

    Raises:
        InputError: the side cannot be halved as often as the network needs.
    """
    if config.network == "student":
        net = Student(widths=config.widths, num_blocks=config.num_blocks, img_resolution=side_px)
        if side_px % net.step:
            raise InputError(f"a student of {len(config.widths)} levels needs sides of {net.step} px, not {side_px}")
        return net
    num_downs = min(8, (side_px & -side_px).bit_length() - 1)
    if num_downs < 2:
        raise InputError(f"a U-Net cannot halve {side_px} px twice", hint="make pairs of a power of two")
    return UnetGenerator(ngf=config.ngf, num_downs=num_downs, norm=config.norm)


class Critics(nn.Module):
    """Patch discriminators of person and drawing together, each at half the side of the one before."""

    def __init__(self, config: DistillConfig) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            PatchDiscriminator(ndf=config.ndf, num_layers=config.num_layers, norm=config.norm)
            for _ in range(config.num_scales)
        )

    def forward(self, source: Tensor, drawing: Tensor) -> list[list[Tensor]]:
        """Return, for each scale, the maps of all layers; the last of them are the logits."""
        both = torch.cat([source, drawing], 1)
        found = []
        for i, net in enumerate(self.nets):
            assert isinstance(net, PatchDiscriminator)
            both = F.avg_pool2d(both, 2) if i else both
            found.append(net.maps(both))
        return found


def gan_loss(logits: Tensor, is_real: bool, kind: str) -> Tensor:
    """How far logits are from saying that the drawings are real (or not): a scalar."""
    wanted = torch.full_like(logits, float(is_real))
    if kind == "lsgan":
        return F.mse_loss(logits, wanted)
    return F.binary_cross_entropy_with_logits(logits, wanted)


def _mean(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).mean()


# ---- The loop -------------------------------------------------------------------------------------------------------


class _Trainer:
    """Translator, its moving average, discriminators and both optimisers."""

    def __init__(
        self, config: DistillConfig, pairs: Pairs, face_net: FaceNet | None, device: torch.device | str
    ) -> None:
        self.config, self.pairs, self.face_net, self.device = config, pairs, face_net, torch.device(device)
        torch.manual_seed(config.seed)
        self.G: Translator = make_translator(config, pairs.side_px).to(self.device)
        self.D = Critics(config).to(self.device)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        betas = (config.beta1, config.beta2)
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), lr=config.lr, betas=betas)
        self.optimizer_D = torch.optim.Adam(self.D.parameters(), lr=config.lr_discriminator, betas=betas)
        self.batches = Batches(len(pairs), config.batch_size, seed=config.seed)
        self.dtype = dtype_of(config.precision)
        self.step = 0

    def _parts(self) -> dict[str, Any]:
        names = ("G", "G_ema", "D", "optimizer_G", "optimizer_D")
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step} | {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return people as they are seen, as they are, and drawn."""
        config = self.config
        words = np.random.SeedSequence([config.seed, self.step]).generate_state(2)
        torch.manual_seed(int(words[0]))  # of dropout
        rng = torch.Generator().manual_seed(int(words[1]))
        source, target = self.pairs.at(self.batches.at(self.step))
        if config.is_cut:
            source, target = cut_at_random(source, target, rng)
        else:
            source, target = moved(source, target, rng, share=config.move_share)
        seen = worsened(sharpened(source, rng, share=config.sharpen_share), rng, share=config.degrade_share)
        return seen.to(self.device), source.to(self.device), target.to(self.device)

    def _learn_D(self, source: Tensor, drawn: Tensor, target: Tensor) -> Tensor:
        config = self.config
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            real, made = self.D(source, target), self.D(source, drawn)
        losses = [
            gan_loss(maps[-1].float(), is_real, config.gan)
            for maps_of, is_real in ((real, True), (made, False))
            for maps in maps_of
        ]
        loss = 2 * _mean(losses)
        self.optimizer_D.zero_grad(set_to_none=True)
        (config.discriminator_share * loss).backward()
        self.optimizer_D.step()
        return loss.detach()

    def _terms(self, source: Tensor, drawn: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The terms of the translator's loss, unweighted; those without a weight are not computed."""
        config = self.config
        terms = {"l1": (drawn - target).abs().mean()}
        if config.perceptual_weight and self.face_net is not None:
            with torch.no_grad():
                wanted = self.face_net.maps(target)
            terms["perceptual"] = perceptual(self.face_net.maps(drawn), wanted).mean()
        if config.identity_weight and self.face_net is not None:
            with torch.no_grad():
                person = self.face_net(source).identity
            terms["identity"] = identity_distance(self.face_net(drawn).identity, person).mean()
        if config.gan_weight or config.feature_weight:
            made = self.D(source, drawn)
            terms["gan"] = _mean([gan_loss(maps[-1].float(), True, config.gan) for maps in made])
            if config.feature_weight:
                with torch.no_grad():
                    real = self.D(source, target)
                parts = [
                    F.l1_loss(a.float(), b.float())
                    for ours, theirs in zip(made, real, strict=True)
                    for a, b in zip(ours[:-1], theirs[:-1], strict=True)
                ]
                terms["feature"] = _mean(parts)
        return terms

    def train_step(self) -> dict[str, float]:
        """Show one batch and return what was measured."""
        config = self.config
        left = 1 - max(0.0, self.step / config.num_steps - config.decay_from) / max(1e-9, 1 - config.decay_from)
        for optimizer, lr in ((self.optimizer_G, config.lr), (self.optimizer_D, config.lr_discriminator)):
            for group in optimizer.param_groups:
                group["lr"] = lr * left
        seen, source, target = self._batch()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            drawn = self.G(seen).float()
        scalars = {}
        if config.gan_weight or config.feature_weight:
            scalars["discriminator"] = float(self._learn_D(source, drawn.detach(), target))
        self.D.requires_grad_(False)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            terms = self._terms(source, drawn, target)
        loss = torch.stack([getattr(config, f"{name}_weight") * value.float() for name, value in terms.items()]).sum()
        self.optimizer_G.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer_G.step()
        self.D.requires_grad_(True)
        self._average()
        self.step += 1
        return scalars | {"loss": float(loss.detach())} | {name: float(v.detach()) for name, v in terms.items()}

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average towards the weights; norms' means and variances are taken as they are."""
        half_life = min(self.config.ema_kimg * 1000 / self.config.batch_size, (self.step + 1) / 10)
        share = 1 - 0.5 ** (1 / half_life) if self.config.ema_kimg else 1.0
        torch._foreach_lerp_(list(self.G_ema.parameters()), list(self.G.parameters()), share)
        for kept, now in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            kept.copy_(now)

    def drawn(self, source: Tensor) -> Tensor:
        """Draw people [N, 3, S, S] as the network will be used."""
        self.G_ema.eval()
        with torch.no_grad():
            return torch.cat([self.G_ema(some.to(self.device)).clamp(-1, 1) for some in source.split(JUDGED_AT_ONCE)])

    def validate(self, held: Pairs, path: Path) -> dict[str, float]:
        """Judge pairs that were kept out, and write a sheet of person, drawing and target."""
        source, target = held.at(torch.arange(min(len(held), NUM_JUDGED)))
        drawn, target = self.drawn(source), target.to(self.device)
        scalars = {"val_l1": float((drawn - target).abs().mean())}
        if self.face_net is not None:
            with torch.no_grad():
                parts = [
                    perceptual(self.face_net.maps(a), self.face_net.maps(b)).sum()
                    for a, b in zip(drawn.split(JUDGED_AT_ONCE), target.split(JUDGED_AT_ONCE), strict=True)
                ]
            scalars["val_perceptual"] = float(sum(parts)) / len(drawn)
        rows = [to_pil(img[:NUM_SHOWN].cpu()) for img in (source, drawn, target)]
        with replacing(path) as part:
            grid([tile for row in rows for tile in row], columns=len(rows[0])).save(part, format="PNG")
        return scalars


def distill(
    config: DistillConfig,
    pairs: Pairs,
    run_dir: Path,
    on_step: Sink = ignore,
    *,
    held: Pairs | None = None,
    face_net: FaceNet | None = None,
    device: torch.device | str = "cpu",
) -> Translator:
    """Train a translator; called again with the same folder, it goes on where it stopped.

    Args:
        config: settings.
        pairs: to learn from.
        run_dir: folder for options.json, stats.jsonl, samples and state.pt.
        on_step: told after every step.
        held: pairs of other people, for validation and samples.
        face_net: network for the perceptual term, which needs it.
        device: where to train.

    Returns:
        The translator, its moving average where the settings keep one; for evaluation, without gradients.

    Raises:
        InputError: pairs of a side that the network does not take, a folder with other settings or data, held pairs of
            another side, or no face network for a term that has a weight.
    """
    for name in ("perceptual_weight", "identity_weight"):
        if getattr(config, name) and face_net is None:
            raise InputError(f"{name} needs a face network", hint=f"set {name}=0")
    if held is not None and held.side_px != pairs.side_px:
        raise InputError(f"pairs for validation are {held.side_px} px, the others {pairs.side_px}")
    if config.num_scales > 1 and pairs.side_px >> (config.num_scales + config.num_layers) < 2:
        hint = "set fewer num_scales or num_layers"
        raise InputError(f"{config.num_scales} scales are too many for pairs of {pairs.side_px} px", hint=hint)
    if face_net is not None:
        face_net = copy.deepcopy(face_net).to(device).eval().requires_grad_(False)
    trainer = _Trainer(config, pairs, face_net, device)
    origin = Origin(config.fixed(), pairs.digest)
    state_path = run_dir / "state.pt"
    if (state := load_state(state_path, origin, trainer.device)) is not None:
        trainer.load_state_dict(state)
    write_options(config, run_dir, origin, {"pictures": len(pairs)})
    with open(run_dir / "stats.jsonl", "a", encoding="utf-8") as stats:
        while trainer.step < config.num_steps:
            scalars, pictures = trainer.train_step(), {}
            is_last = trainer.step == config.num_steps
            is_due = is_last or trainer.step % config.save_steps == 0
            if is_due and held is not None:
                pictures = {"samples": run_dir / f"samples-{trainer.step:07d}.png"}
                scalars |= trainer.validate(held, pictures["samples"])
            if is_due or trainer.step % 50 == 0:
                stats.write(json.dumps({"step": trainer.step} | scalars) + "\n")
                stats.flush()
            if is_due:
                save_state(trainer.state_dict(), state_path, origin)
            on_step(Step("distill", trainer.step, config.num_steps, scalars, pictures))
    return trainer.G_ema.eval()
