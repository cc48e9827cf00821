"""Training of the encoder on a fixed generator: real pictures to render again, generated ones whose codes are known.

Rows may leave the base code one after another, from the coarsest on, and pay for the distance, so that codes stay where
edits work. Every look of the encoder is judged alike, and learns alone. The same command goes on where a killed run
stopped: a step is a function of (seed, step) and the state.

Source: Tov et al. 2021 (e4e), Sec. 4, arXiv:2102.02766; losses on real pictures: Richardson et al. 2021 (pSp),
Sec. 3.2, arXiv:2008.00951; looks: Alaluf et al. 2021 (ReStyle), Sec. 3, arXiv:2104.02699.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import InputError
from mien.inversion.objective import FaceFeatures, FaceModel, Target, TermWeights, picture_terms, total
from mien.latents import LatentStats, latent_stats
from mien.nets.compile import compiled_if
from mien.nets.encoder import Encoder, looking
from mien.nets.generator import Generator
from mien.nets.precision import dtype_of
from mien.report import Sink, Step, ignore
from mien.training.data import Batches, PictureSet
from mien.training.provenance import net_digest
from mien.training.resume import Origin, load_state, save_state, write_options
from mien.training.settings import fixed_settings, require_above, require_least, require_share

__all__ = ["EncoderConfig", "train_encoder"]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Settings of a run."""

    num_steps: int = 2000
    batch_size: int = 32  # real pictures; half as many generated ones go with them
    lr: float = 1e-3  # Adam (0.9, 0.99), falling to nothing along a cosine
    warmup_steps: int = 50
    hidden: int = 512  # width of the encoder's last layer
    num_looks: int = 3  # how often the encoder looks
    terms: TermWeights = field(default_factory=lambda: TermWeights(identity=1.0))  # on real pictures
    latent_weight: float = 0.5  # squared distance to the known codes, in units of the spread of w
    offset_weight: float = 0.05  # squared distance of the rows from the base code, same units
    mixing_prob: float = 0.5  # generated pictures whose rows come from two codes
    free_from: float = 0.0  # share of the run in which the code stays in W,
    free_until: float = 0.2  # and by which every row may leave it
    jitter: float = 0.05  # how far the face network's view of both pictures is moved, turned and scaled, of the side
    ema_steps: float = 100.0  # half-life of the moving average that is kept
    precision: str = "bf16"
    use_compile: bool = True
    save_steps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        dtype_of(self.precision)
        require_least(self, 1, "num_steps", "warmup_steps", "hidden", "num_looks", "save_steps")
        require_least(self, 2, "batch_size")
        require_least(self, 0, "latent_weight", "offset_weight", "jitter", "seed")
        require_above(self, 0, "lr", "ema_steps")
        require_share(self, "mixing_prob", "free_from", "free_until")
        require_least(self, self.free_from, "free_until")

    def fixed(self) -> dict[str, Any]:
        """The settings that may not change within a run."""
        return fixed_settings(self, free=("num_steps", "save_steps", "precision", "use_compile"))


def num_free_rows(config: EncoderConfig, step: int, num_ws: int) -> int:
    """How many rows may leave the base code at `step`: none at first, then one more at a time."""
    begin, end = config.free_from * config.num_steps, config.free_until * config.num_steps
    if step >= end:
        return num_ws
    return int((step - begin) / (end - begin) * (num_ws + 1)) if step > begin else 0


def learning_rate(config: EncoderConfig, step: int) -> float:
    """Linear up, cosine down to zero."""
    return (
        config.lr * min(1, (step + 1) / config.warmup_steps) * (0.5 + 0.5 * math.cos(math.pi * step / config.num_steps))
    )


def jittered(face_model: FaceModel | None, num: int, amount: float, rng: torch.Generator) -> FaceModel | None:
    """Let the face network see `num` pictures moved, turned and scaled a little, each time in the same way.

    What survives that is likeness; what an encoder would learn to draw for one pixel grid's sake does not.
    """
    if face_model is None or amount == 0:
        return face_model
    shift, turn, scale = torch.randn([3, num], generator=rng).mul(amount)
    rise = torch.randn([num], generator=rng) * amount
    cos, sin = (1 + scale) * turn.cos(), (1 + scale) * turn.sin()
    theta = torch.stack([torch.stack([cos, -sin, shift], 1), torch.stack([sin, cos, rise], 1)], 1)  # [num,2,3]

    def seen(img: Tensor) -> FaceFeatures:
        grid = F.affine_grid(theta.to(img), list(img.shape), align_corners=False)
        return face_model(F.grid_sample(img, grid, padding_mode="border", align_corners=False))

    return seen


class _Trainer:
    """Encoder, its moving average and optimiser."""

    def __init__(self, config: EncoderConfig, G: Generator, pixels: Tensor, face_model: FaceModel | None) -> None:
        self.config, self.G, self.pixels, self.face_model = config, G, pixels, face_model
        self.device = G.w_avg.device
        self.stats: LatentStats = latent_stats(G)
        self.unit = self.stats.w_std / math.sqrt(G.w_dim)
        torch.manual_seed(config.seed)
        self.E = Encoder(G.img_resolution, G.num_ws, G.w_dim, hidden=config.hidden, num_looks=config.num_looks)
        self.E.to(self.device)
        self.E.w_avg.copy_(self.stats.w_avg)
        self.E_ema = copy.deepcopy(self.E).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.E.parameters(), lr=config.lr, betas=(0.9, 0.99))
        self.batches = Batches(len(pixels), config.batch_size, seed=config.seed)
        self.dtype = dtype_of(config.precision)
        self.synthesis = compiled_if(config.use_compile, G.synthesis)
        self.step = 0

    def begin_with(self, start: Encoder) -> None:
        """Start from an encoder that was trained beside the generator."""
        try:
            for net in (self.E, self.E_ema):
                net.load_state_dict(looking(start, self.config.num_looks).state_dict())
        except RuntimeError as err:
            hint = "the generator and `hidden` must be those that it was trained with"
            raise InputError("the encoder to begin with has other sizes", hint=hint) from err

    def state_dict(self) -> dict[str, Any]:
        nets = {"E": self.E.state_dict(), "E_ema": self.E_ema.state_dict()}
        return {"step": self.step, "optimizer": self.optimizer.state_dict(), **nets}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.E.load_state_dict(state["E"])
        self.E_ema.load_state_dict(state["E_ema"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _real(self, rng: torch.Generator) -> Tensor:
        pixels = self.pixels[self.batches.at(self.step)].to(self.device)
        flips = torch.rand([len(pixels), 1, 1, 1], generator=rng).to(self.device) < 0.5
        return torch.where(flips, pixels.flip(3), pixels).float() / 127.5 - 1

    @torch.no_grad()
    def _generated(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw ws [n, num_ws, w_dim], some of two codes, and their pictures."""
        num = self.config.batch_size // 2
        z = torch.randn([2, num, self.G.z_dim], generator=rng).to(self.device)
        crossover = torch.randint(1, self.G.num_ws, [num, 1, 1], generator=rng)
        crossover[torch.rand([num, 1, 1], generator=rng) >= self.config.mixing_prob] = self.G.num_ws
        is_second = torch.arange(self.G.num_ws)[None, :, None] >= crossover
        ws = torch.where(is_second.to(self.device), self.G.mapping(z[1]), self.G.mapping(z[0]))
        return ws, self.G.synthesis(ws, noise_mode="random", dtype=self.dtype)

    def train_step(self) -> dict[str, float]:
        """Show one batch and return what was measured."""
        config, G = self.config, self.G
        words = np.random.SeedSequence([config.seed, self.step]).generate_state(2)
        torch.manual_seed(int(words[0]))
        rng = torch.Generator().manual_seed(int(words[1]))
        real = self._real(rng)
        known, drawn = self._generated(rng)
        img = torch.cat([real, drawn])
        face_model = jittered(self.face_model, len(real), config.jitter, rng)
        with torch.no_grad():
            target = Target.of(real, face_model)
        free = num_free_rows(config, self.step, G.num_ws)
        loss, seen, render = torch.zeros([], device=self.device), None, torch.empty(0)
        for _ in range(config.num_looks):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                if seen is None:
                    ws = seen = self.E(img, free)
                else:
                    ws = self.E.further(ws, seen, render, free)
            found, guessed = ws.split([len(real), len(drawn)])
            again = self.synthesis(found, noise_mode="const", dtype=self.dtype)
            terms = picture_terms(again, target, config.terms, face_model)
            latent = (guessed - known).square().mean() / self.unit**2
            offset = (ws - ws.mean(dim=1, keepdim=True)).square().mean() / self.unit**2
            loss = loss + total(terms, config.terms).mean()
            loss = loss + config.latent_weight * latent + config.offset_weight * offset
            ws = ws.detach()
            with torch.no_grad():
                render = torch.cat([again, self.synthesis(guessed, noise_mode="const", dtype=self.dtype)])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.E.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step)
        self.optimizer.step()
        half_life = min(config.ema_steps, (self.step + 1) / 10)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.E_ema.parameters()), list(self.E.parameters()), 1 - 0.5 ** (1 / half_life))
        self.step += 1
        scalars = {name: float(value.detach().mean()) for name, value in terms.items()}
        return {
            "loss": float(loss.detach()),
            "latent": float(latent.detach()),
            "offset": float(offset.detach()),
        } | scalars


def train_encoder(
    config: EncoderConfig,
    G: Generator,
    data: PictureSet,
    run_dir: Path,
    on_step: Sink = ignore,
    *,
    face_model: FaceModel | None = None,
    start: Encoder | None = None,
) -> Encoder:
    """Train an encoder for `G`; called again with the same folder, it goes on where it stopped.

    Args:
        config: settings.
        G: the generator, on the device to train on; it is not changed.
        data: FFHQ-aligned pictures of its side.
        run_dir: folder for options.json, stats.jsonl and state.pt.
        on_step: told after every step.
        face_model: network for the perceptual and identity terms.
        start: an encoder of the same sizes to begin with, say the one that was trained beside the generator.

    Returns:
        The moving average of the encoder.

    Raises:
        InputError: pictures or `start` of another size, or a folder with other settings, data or generator.
    """
    side = G.img_resolution
    if data.pixels.shape[1:] != (3, side, side):
        raise InputError(f"pictures are {list(data.pixels.shape[1:])}, the generator's are {side} px")
    trainer = _Trainer(config, G, data.pixels, face_model)
    origin = Origin(config.fixed(), data.digest, network=net_digest(cast(nn.Module, G)))
    state_path = run_dir / "state.pt"
    if (state := load_state(state_path, origin, trainer.device)) is not None:
        trainer.load_state_dict(state)
    elif start is not None:
        trainer.begin_with(start)
    write_options(config, run_dir, origin, {"pictures": len(data)})
    with open(run_dir / "stats.jsonl", "a", encoding="utf-8") as stats:
        while trainer.step < config.num_steps:
            scalars = trainer.train_step()
            on_step(Step("encoder", trainer.step, config.num_steps, scalars))
            if trainer.step % 10 == 0:
                stats.write(json.dumps({"step": trainer.step} | scalars) + "\n")
                stats.flush()
            if trainer.step % config.save_steps == 0 or trainer.step == config.num_steps:
                save_state(trainer.state_dict(), state_path, origin)
    return trainer.E_ema
