"""From photos and drawings of other people to a translator, without pairs: what it draws stays the photo's own face.

Two discriminators know the drawings. One sees the surface, what is left of a picture when edges are kept and all else
is smoothed; the other sees the texture, the picture in a random grey, so that it judges lines and not colours. What is
drawn is held to the photo by the maps of the face network and by its colours at an eighth of the side. The translator
begins by learning to smooth.

A step is a function of (seed, step) and the state, so that a killed run ends with the same bits on a CPU.

Source: Wang and Yu 2020 (White-box cartoonization), Sec. 3, doi:10.1109/CVPR42600.2020.00811; the beginning on content
alone: Chen et al. 2018 (CartoonGAN), Sec. 3.3, doi:10.1109/CVPR.2018.00986; guided filter: He et al. 2010, Eq. 5-8,
doi:10.1007/978-3-642-15549-9_1; spectral norm: Miyato et al. 2018, arXiv:1802.05957.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from mien.atomic import replacing
from mien.errors import InputError
from mien.images import grid, to_pil
from mien.losses import perceptual
from mien.nets.features import FaceNet
from mien.nets.precision import dtype_of
from mien.nets.student import Student
from mien.report import Sink, Step, ignore
from mien.training.data import Batches, PictureSet, select
from mien.training.pair_set import worsened
from mien.training.resume import Origin, load_state, save_state, write_options
from mien.training.settings import fixed_settings, require_above, require_least, require_share

__all__ = ["CartoonConfig", "cartoon", "guided_filter", "sharpest"]

SLOPE = 0.2
GREY = (0.299, 0.587, 0.114)
COLOUR_PX, NUM_SHOWN = 8, 10
SHIFT, BRIGHTNESS, CONTRAST = 1 / 16, 0.15, 0.2  # of what a discriminator sees: of the side, and most of each


@dataclass(frozen=True, kw_only=True)
class CartoonConfig:
    """Settings of a run; the defaults draw faces of 128 px, clear and with lines, before the critics take over."""

    where: str = ""  # which drawings, by a column of their table: style=illustration,comic
    kimg: float = 16.0  # thousands of photos that are shown; with twice as many, lines get coloured fringes
    pre_kimg: float = 2.4  # of them, those by which it learns to smooth
    batch_size: int = 8
    lr: float = 6e-4  # Adam's; up over 50 steps, straight down to nothing from the share `decay_from` of the run on
    lr_discriminator: float = 1.2e-3
    beta1: float = 0.5
    beta2: float = 0.99
    decay_from: float = 1.0
    widths: tuple[int, ...] = (16, 32, 64, 128, 192)  # of the student's levels, and
    num_blocks: tuple[int, ...] = (0, 0, 1, 1, 2)  # their residual blocks
    ndf: int = 32  # maps of a discriminator's first layer
    texture_weight: float = 2.5
    surface_weight: float = 1.0
    content_weight: float = 3.0  # distance of the face network's maps to the photo's
    colour_weight: float = 6.0  # L1 at an eighth of the side
    variation_weight: float = 0.3  # L1 between neighbours
    smooth_weight: float = 10.0  # L1 to the smoothed photo, at the beginning alone
    sharp_share: float = 0.6  # of the photos, the sharpest are shown
    min_chroma: float = 6.0  # least mean distance from grey of a drawing, of 255
    degrade_share: float = 0.25  # of photos that get each kind of a worse camera
    ema_kimg: float = 1.6  # half-life of the moving average that is kept
    precision: str = "bf16"
    save_kimg: float = 2.0  # between two states and sheets of samples
    seed: int = 0

    def __post_init__(self) -> None:
        dtype_of(self.precision)
        require_least(self, 1, "batch_size", "ndf")
        weights = ("texture_weight", "surface_weight", "content_weight", "colour_weight", "variation_weight")
        require_least(self, 0, *weights, "smooth_weight", "pre_kimg", "min_chroma", "seed")
        require_above(self, 0, "kimg", "lr", "lr_discriminator", "save_kimg", "ema_kimg", "sharp_share")
        require_share(self, "decay_from", "degrade_share", "sharp_share", "beta1", "beta2")
        if len(self.widths) != len(self.num_blocks) or min(self.widths, default=0) < 1 or min(self.num_blocks) < 0:
            raise InputError(f"widths {self.widths} and num_blocks {self.num_blocks} make no student")

    def steps(self, kimg: float) -> int:
        """How many batches show that many thousands of photos."""
        return max(1, round(kimg * 1000 / self.batch_size))

    def fixed(self) -> dict[str, Any]:
        """The settings that may not change within a run."""
        return fixed_settings(self, free=("save_kimg", "precision"))


# ---- What the discriminators see ------------------------------------------------------------------------------------


def _box(x: Tensor, radius_px: int) -> Tensor:
    """Mean over squares of 2 r + 1 px, mirrored at the border."""
    side = 2 * radius_px + 1
    padded = F.pad(x, (radius_px,) * 4, mode="reflect")
    return F.avg_pool2d(F.avg_pool2d(padded, (side, 1), 1), (1, side), 1)


def guided_filter(img: Tensor, radius_px: int = 4, eps: float = 0.04) -> Tensor:
    """Smooth img [N, C, H, W] guided by itself: where it varies by much more than `eps` it stays.

    Source: He et al. 2010, Eq. 5-8, doi:10.1007/978-3-642-15549-9_1.
    """
    mean = _box(img, radius_px)
    variance = _box(img * img, radius_px) - mean * mean
    slope = variance / (variance + eps)
    return _box(slope, radius_px) * img + _box(mean - slope * mean, radius_px)


def surface(img: Tensor, _rng: torch.Generator) -> Tensor:
    """Return the smoothed picture at half its side, [N, 3, H/2, W/2]."""
    return guided_filter(F.avg_pool2d(img, 2), radius_px=2)


def texture(img: Tensor, rng: torch.Generator) -> Tensor:
    """Return the picture in a grey of random weights, [N, 1, H, W]."""
    shares = torch.tensor(GREY) + 0.2 * (torch.rand(3, generator=rng) - 0.5)
    return (img * (shares / shares.sum()).to(img)[:, None, None]).sum(1, keepdim=True)


def varied(img: Tensor, rng: torch.Generator) -> Tensor:
    """Move [N, C, H, W] by some pixels and change its light, so that few drawings are not learned by heart.

    Source: Zhao et al. 2020 (DiffAugment), Sec. 3, arXiv:2006.10738.
    """
    num, reach = len(img), max(1, round(SHIFT * img.shape[-1]))
    light, contrast = (2 * torch.rand(2, num, 1, 1, 1, generator=rng) - 1).to(img)
    mean = img.mean((1, 2, 3), keepdim=True)
    img = (img - mean) * (1 + CONTRAST * contrast) + mean + BRIGHTNESS * light
    x, y = (int(v) for v in torch.randint(0, 2 * reach + 1, [2], generator=rng))
    return F.pad(img, (reach,) * 4, mode="reflect")[..., y : y + img.shape[-2], x : x + img.shape[-1]]


class PatchCritic(nn.Module):
    """Logits of patches of [N, in_channels, H, W] by convolutions of bounded slope."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        widths = [in_channels, width, 2 * width, 4 * width]
        self.halvings = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in pairwise(widths))
        self.wide = spectral_norm(nn.Conv2d(widths[-1], widths[-1], 3, 1, 1))
        self.logits = spectral_norm(nn.Conv2d(widths[-1], 1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 1, H/8, W/8]."""
        for halving in self.halvings:
            x = F.leaky_relu(halving(x), SLOPE)
        logits: Tensor = self.logits(F.leaky_relu(self.wide(x), SLOPE))
        return logits


# ---- Data -----------------------------------------------------------------------------------------------------------


def sharpest(pixels: Tensor, share: float) -> Tensor:
    """Return the indices, in order, of the `share` of uint8 [N, 3, H, W] whose Laplacian varies most."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    parts = [F.conv2d(some.float().mean(1, keepdim=True), kernel).flatten(1).var(1) for some in pixels.split(512)]
    num = max(1, round(share * len(pixels)))
    return torch.cat(parts).argsort(descending=True)[:num].sort().values


def coloured(drawings: PictureSet, min_chroma: float) -> PictureSet:
    """Leave out drawings in black and white.

    Raises:
        InputError: all are.
    """
    x = drawings.pixels.float()
    chroma = (x - x.mean(1, keepdim=True)).abs().mean((1, 2, 3))
    if not (keep := (chroma >= min_chroma).numpy()).any():
        raise InputError("no drawing has colour", hint="give others, or set min_chroma=0")
    return drawings.select(keep)


# ---- The loop -------------------------------------------------------------------------------------------------------

Sight = Callable[[Tensor, torch.Generator], Tensor]
SIGHTS: Mapping[str, tuple[Sight, int, float]] = {"texture": (texture, 1, 1.0), "surface": (surface, 3, 0.75)}
"""What each discriminator sees, in how many channels, and its width as a share of `ndf`."""


class _Trainer:
    """Translator, its moving average, discriminators and both optimisers."""

    def __init__(
        self, config: CartoonConfig, photos: Tensor, drawings: Tensor, face_net: FaceNet, device: torch.device | str
    ) -> None:
        self.config, self.photos, self.drawings, self.face_net = config, photos, drawings, face_net
        self.device, self.dtype, self.step = torch.device(device), dtype_of(config.precision), 0
        torch.manual_seed(config.seed)
        side = int(photos.shape[-1])
        self.G = Student(widths=config.widths, num_blocks=config.num_blocks, img_resolution=side).to(self.device)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)
        widths = {name: max(1, round(share * config.ndf)) for name, (_, _, share) in SIGHTS.items()}
        self.D = nn.ModuleDict({name: PatchCritic(SIGHTS[name][1], widths[name]) for name in SIGHTS}).to(self.device)
        betas = (config.beta1, config.beta2)
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), lr=config.lr, betas=betas)
        self.optimizer_D = torch.optim.Adam(self.D.parameters(), lr=config.lr_discriminator, betas=betas)
        self.photo_batches = Batches(len(photos), config.batch_size, seed=config.seed)
        self.drawing_batches = Batches(len(drawings), config.batch_size, seed=config.seed + 1)

    def _parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("G", "G_ema", "D", "optimizer_G", "optimizer_D")}

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step} | {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _shown(self, pixels: Tensor, rows: Tensor, rng: torch.Generator) -> Tensor:
        img = pixels[rows].float() / 127.5 - 1
        return torch.where(torch.rand(len(img), 1, 1, 1, generator=rng) < 0.5, img.flip(3), img)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def _learn_D(self, drawn: Tensor, drawing: Tensor, rng: torch.Generator) -> Tensor:
        """Hinge loss over both sights."""
        loss = torch.zeros([], device=self.device)
        with self._autocast():
            for name, (sight, _, _) in SIGHTS.items():
                real, made = (self.D[name](varied(sight(img, rng), rng)).float() for img in (drawing, drawn))
                loss = loss + F.relu(1 - real).mean() + F.relu(1 + made).mean()
        self.optimizer_D.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer_D.step()
        return loss.detach()

    def _terms(self, photo: Tensor, drawn: Tensor, rng: torch.Generator, *, is_beginning: bool) -> dict[str, Tensor]:
        with torch.no_grad():
            wanted = self.face_net.maps(photo)
        colours, wanted_colours = (F.avg_pool2d(img, COLOUR_PX) for img in (drawn, photo))
        terms = {
            "content": perceptual(self.face_net.maps(drawn), wanted).mean(),
            "colour": (colours - wanted_colours).abs().mean(),
            "variation": drawn.diff(dim=2).abs().mean() + drawn.diff(dim=3).abs().mean(),
        }
        if is_beginning:
            return terms | {"smooth": (drawn - guided_filter(photo)).abs().mean()}
        return terms | {
            name: -self.D[name](varied(sight(drawn, rng), rng)).float().mean() for name, (sight, _, _) in SIGHTS.items()
        }

    def _set_rates(self) -> None:
        config = self.config
        share = self.step / config.steps(config.kimg)
        left = min(1.0, (self.step + 1) / 50, (1 - share) / max(1e-9, 1 - config.decay_from))
        for optimizer, lr in ((self.optimizer_G, config.lr), (self.optimizer_D, config.lr_discriminator)):
            for group in optimizer.param_groups:
                group["lr"] = lr * left

    def train_step(self) -> dict[str, float]:
        """Show one batch and return what was measured."""
        config, is_beginning = self.config, self.step < self.config.pre_kimg * 1000 / self.config.batch_size
        words = np.random.SeedSequence([config.seed, self.step]).generate_state(1)
        rng = torch.Generator().manual_seed(int(words[0]))
        self._set_rates()
        photo = self._shown(self.photos, self.photo_batches.at(self.step), rng)
        seen = worsened(photo, rng, share=config.degrade_share).to(self.device)
        photo, scalars = photo.to(self.device), dict[str, float]()
        with self._autocast():
            drawn = self.G(seen).float()
        if not is_beginning:
            drawing = self._shown(self.drawings, self.drawing_batches.at(self.step), rng).to(self.device)
            scalars["discriminator"] = float(self._learn_D(drawn.detach(), drawing, rng))
        self.D.requires_grad_(False)
        with self._autocast():
            terms = self._terms(photo, drawn, rng, is_beginning=is_beginning)
        loss = torch.stack([getattr(config, f"{name}_weight") * value.float() for name, value in terms.items()]).sum()
        self.optimizer_G.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer_G.step()
        self.D.requires_grad_(True)
        half_life = min(config.ema_kimg * 1000 / config.batch_size, (self.step + 1) / 10)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.G_ema.parameters()), list(self.G.parameters()), 1 - 0.5 ** (1 / half_life))
        self.step += 1
        return scalars | {"loss": float(loss.detach())} | {name: float(v.detach()) for name, v in terms.items()}

    @torch.no_grad()
    def draw_sheet(self, held: Tensor, path: Path) -> None:
        """Write a sheet of people and what is drawn of them."""
        shown = (held[:NUM_SHOWN].float() / 127.5 - 1).to(self.device)
        rows = [to_pil(img.cpu()) for img in (shown, self.G_ema(shown).clamp(-1, 1))]
        with replacing(path) as part:
            grid([tile for row in rows for tile in row], columns=len(rows[0])).save(part, format="PNG")


def cartoon(
    config: CartoonConfig,
    photos: PictureSet,
    drawings: PictureSet,
    run_dir: Path,
    on_step: Sink = ignore,
    *,
    face_net: FaceNet,
    held: PictureSet | None = None,
    device: torch.device | str = "cpu",
) -> Student:
    """Train a translator on photos and drawings of other people; called again with the same folder, it goes on.

    Args:
        config: settings; `where` chooses among the drawings.
        photos: FFHQ-aligned faces.
        drawings: drawn ones of the same side.
        run_dir: folder for options.json, stats.jsonl, samples and state.pt.
        on_step: told after every step.
        face_net: whose maps hold what is drawn to the photo.
        held: people of whom samples are drawn.
        device: where to train.

    Returns:
        The moving average of the translator, for evaluation, without gradients.

    Raises:
        InputError: pictures of several sides, drawings without colour, or a folder with other settings or data.
    """
    if photos.pixels.shape[1:] != drawings.pixels.shape[1:]:
        sizes = " and ".join(f"{data.pixels.shape[-1]} px" for data in (photos, drawings))
        raise InputError(f"photos and drawings are of {sizes}", hint="load both at one side")
    chosen = coloured(select(drawings, config.where), config.min_chroma)
    face_net = copy.deepcopy(face_net).to(device).eval().requires_grad_(False)
    clear = photos.pixels[sharpest(photos.pixels, config.sharp_share)]
    trainer = _Trainer(config, clear, chosen.pixels, face_net, device)
    if photos.pixels.shape[-1] % trainer.G.step or photos.pixels.shape[-1] % COLOUR_PX:
        hint = f"give pictures of a multiple of {max(trainer.G.step, COLOUR_PX)} px"
        raise InputError(f"a student of {len(config.widths)} levels takes no {photos.pixels.shape[-1]} px", hint=hint)
    origin = Origin(config.fixed(), [photos.digest, drawings.digest])
    state_path = run_dir / "state.pt"
    if (state := load_state(state_path, origin, trainer.device)) is not None:
        trainer.load_state_dict(state)
    write_options(config, run_dir, origin, {"pictures": len(clear), "drawings": len(chosen)})
    num_steps, save_steps = config.steps(config.kimg), config.steps(config.save_kimg)
    with open(run_dir / "stats.jsonl", "a", encoding="utf-8") as stats:
        while trainer.step < num_steps:
            scalars, pictures = trainer.train_step(), {}
            is_due = trainer.step == num_steps or trainer.step % save_steps == 0
            if is_due and held is not None:
                pictures = {"samples": run_dir / f"samples-{trainer.step:07d}.png"}
                trainer.draw_sheet(held.pixels, pictures["samples"])
            if is_due or trainer.step % 50 == 0:
                stats.write(json.dumps({"step": trainer.step} | scalars) + "\n")
                stats.flush()
            if is_due:
                save_state(trainer.state_dict(), state_path, origin)
            on_step(Step("cartoon", trainer.step, num_steps, scalars, pictures))
    return trainer.G_ema.eval()
