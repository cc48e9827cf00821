"""One step of StyleGAN2's training: non-saturating loss, R1, path length, style mixing, ADA, moving average.

Beside the adversary an encoder may be trained (`encoder_share`): part of what the generator renders are then
reconstructions of real pictures, judged by D like every other, so that real people stay within its reach. With
`autoencoder_kimg` the run starts on reconstruction alone.

Everything random is derived from (seed, step), so that a state and its step are all that a run needs to go on.

Source: Karras et al. 2020, arXiv:1912.04958 and arXiv:2006.06676; encoder: see `autoencoder.py`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import InputError
from mien.nets.compile import compiled_if
from mien.nets.discriminator import Discriminator
from mien.nets.encoder import Encoder
from mien.nets.precision import dtype_of
from mien.nets.stylegan2 import Generator
from mien.training.augment import AdaController, augment
from mien.training.autoencoder import code_moments, moments_apart, pyramid_distance
from mien.training.critic import FeatureCritic, Maps
from mien.training.data import Batches
from mien.training.ranks import average_, rank, share
from mien.training.settings import fixed_settings, require_above, require_least, require_share
from mien.training.whiten import whiten

__all__ = ["PRESETS", "GanConfig", "GanTrainer", "Perceptual"]

R1_AT_ONCE, R1_SMALL_PX = 16, 64  # oneDNN's bfloat16 second derivatives divide by zero on 32 pictures of 128 px.
CRITIC_PICTURES = 256  # that the critic takes the spread of its maps from.
Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Distance [N] of two batches of pictures, such as that of our face network."""


@dataclass(frozen=True, kw_only=True)
class GanConfig:
    """Settings of a run; those above the line make the networks and must stay as they are when a run goes on."""

    img_resolution: int = 64  # Side of the pictures, a power of two.
    z_dim: int = 256
    w_dim: int = 256
    mapping_layers: int = 2
    channel_base: int = 2048  # Feature maps of a block: channel_base / resolution,
    channel_max: int = 256  # but not more than this.
    encoder_hidden: int = 512  # Width of the encoder's last layer.
    batch_size: int = 32
    seed: int = 0
    autoencoder_kimg: float = 0.0  # First thousands of pictures on reconstruction alone.
    encoder_share: float = 0.0  # Share of each batch that reconstructs real pictures, 0 = plain GAN.
    # ------------------------------------------------------------------------------------------------------------------
    kimg: float = 1000.0  # Thousands of real pictures shown to D in all.
    lr: float = 0.0015  # Adam, (0, 0.99), G;
    discriminator_lr: float = 0.0025  # D learns faster, Heusel et al. 2017, arXiv:1706.08500.
    encoder_lr: float = 0.001  # Adam, (0.9, 0.99).
    r1_gamma: float = 0.5  # Karras et al. 2020 (ADA): 0.0002 * resolution^2 / batch_size at the least.
    r1_interval: int = 16  # Steps between two R1 penalties (lazy regularisation).
    pl_weight: float = 0.0  # Path length; 2 in the paper, 0 where time is short.
    pl_interval: int = 8
    style_mixing_prob: float = 0.9
    ada_target: float = 0.6  # Of the mean sign of D on real pictures; 0 switches ADA off.
    ema_kimg: float = 10.0  # Half-life of the moving average,
    ema_rampup: float = 0.05  # but not more than this share of the run so far.
    reconstruction_weight: float = 4.0
    critic_weight: float = 1.0  # Of what a critic on given maps says of the generator,
    critic_lr: float = 0.002  # and how it learns; Adam, (0, 0.99).
    perceptual_weight: float = 0.0  # Of the distance given as `perceptual`.
    moments_weight: float = 0.1  # Keeps the encoder's codes where the mapping's are,
    offsets_weight: float = 0.2  # and their rows together once the adversary is there.
    latent_weight: float = 0.5  # The encoder finds the code of a generated picture.
    precision: str = "bf16"
    use_compile: bool = True
    save_kimg: float = 4.0  # Between two states that a killed run can go on from.
    snapshot_kimg: float = 20.0  # Between two snapshots with pictures.
    evaluate_kimg: float = 20.0  # Between two scores of the moving average, 0 = never,
    evaluate_pictures: int = 1000  # each on so many samples, and on as many pictures of each set of people.

    def __post_init__(self) -> None:
        dtype_of(self.precision)
        if self.img_resolution < 4 or self.img_resolution & (self.img_resolution - 1):
            raise InputError(f"img_resolution must be a power of two from 4 up, got {self.img_resolution}")
        if not 0 <= self.encoder_share < 1:
            raise InputError(f"encoder_share must be from 0 to below 1, got {self.encoder_share}")
        num_coded = round(self.encoder_share * self.batch_size)
        if self.encoder_share > 0 and not 2 <= num_coded <= self.batch_size - 2:  # each part has a variance
            what = f"encoder_share {self.encoder_share:g} of batch_size {self.batch_size} is {num_coded} pictures"
            raise InputError(what, hint="both parts of a batch, coded and drawn, need two at least")
        if self.autoencoder_kimg > 0 and self.z_dim != self.w_dim:
            raise InputError(f"an autoencoder start needs z_dim = w_dim, got {self.z_dim} and {self.w_dim}")
        if self.autoencoder_kimg > 0 and self.encoder_share == 0:
            raise InputError("an autoencoder start needs an encoder", hint="set encoder_share, for example 0.5")
        require_least(self, 2, "batch_size", "evaluate_pictures")
        require_least(self, 1, "z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max", "encoder_hidden")
        require_above(self, 0, "kimg", "lr", "discriminator_lr", "encoder_lr", "critic_lr")
        require_above(self, 0, "r1_interval", "pl_interval", "ema_kimg", "ema_rampup", "save_kimg", "snapshot_kimg")
        require_least(self, 0, "seed", "autoencoder_kimg", "r1_gamma", "pl_weight", "evaluate_kimg")
        require_least(self, 0, "reconstruction_weight", "perceptual_weight", "critic_weight")
        require_least(self, 0, "moments_weight", "offsets_weight", "latent_weight")
        require_share(self, "style_mixing_prob", "ada_target")

    def fixed(self) -> dict[str, Any]:
        """The settings that may not change within a run."""
        names = [field.name for field in dataclasses.fields(self)]
        return fixed_settings(self, free=tuple(names[names.index("kimg") :]))


PRESETS = {
    "faces-64": GanConfig(
        encoder_share=0.375,
        autoencoder_kimg=64,
        kimg=400,
        r1_gamma=0.1,
        style_mixing_prob=0.5,
        perceptual_weight=1.5,
        snapshot_kimg=8,
    ),
    "faces-128": GanConfig(
        img_resolution=128,
        z_dim=512,
        w_dim=512,
        channel_base=8192,
        batch_size=64,
        r1_gamma=0.2,
        encoder_share=0.25,
        autoencoder_kimg=100,
        perceptual_weight=1.0,
        kimg=2000,
        save_kimg=50,
        snapshot_kimg=100,
        evaluate_kimg=50,
    ),
}
"""Settings by name: `faces-64` is what two CPU cores can do in hours, `faces-128` wants a GPU for half an hour."""


@contextmanager
def _frozen(*nets: nn.Module) -> Iterator[None]:
    learning = [weight for net in nets for weight in net.parameters() if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


def _adam(net: nn.Module | None, lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """An optimiser of a network's weights; of nothing where there is no network."""
    weights = [nn.Parameter(torch.zeros(1))] if net is None else list(net.parameters())
    return torch.optim.Adam(weights, lr=lr, betas=betas, eps=1e-8)


class GanTrainer:
    """The networks, their optimisers and one step of training.

    Args:
        config: settings.
        pixels: uint8 [N, 3, H, W], the training pictures.
        device: where to train.
        perceptual: distance of pictures for reconstructions, beside that of the pixels.
        maps: a frozen network's feature maps, for a second critic.
    """

    def __init__(
        self,
        config: GanConfig,
        pixels: Tensor,
        device: torch.device,
        *,
        perceptual: Perceptual | None = None,
        maps: Maps | None = None,
    ) -> None:
        self.config, self.device, self.perceptual = config, device, perceptual
        self.pixels = pixels.to(device)
        self.batches = Batches(len(pixels), config.batch_size, seed=config.seed)
        self.dtype = dtype_of(config.precision)
        torch.manual_seed(config.seed)
        self.G, self.D = self._networks()
        self.E: Encoder | None = None
        if config.encoder_share > 0:
            self.E = Encoder(config.img_resolution, self.G.num_ws, config.w_dim, hidden=config.encoder_hidden)
        self.critic: FeatureCritic | None = None
        if maps is not None and config.critic_weight > 0:
            self.critic = FeatureCritic(maps, self.pixels[:CRITIC_PICTURES].float() / 127.5 - 1, seed=config.seed)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        for net in self.nets().values():
            net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        ratio = config.r1_interval / (config.r1_interval + 1)  # lazy regularisation, Karras et al. 2020, App. B
        self.opt_G = _adam(self.G, config.lr, (0.0, 0.99))
        self.opt_D = _adam(self.D, config.discriminator_lr * ratio, (0.0, 0.99**ratio))
        self.opt_E = _adam(self.E, config.encoder_lr, (0.9, 0.99))
        self.opt_C = _adam(self.critic, config.critic_lr, (0.0, 0.99))
        self.ada = AdaController(target=config.ada_target)
        self.ada_p = torch.zeros([], device=device)
        self.pl_mean = torch.zeros([], device=device)
        self.step = 0
        self.synthesis = compiled_if(config.use_compile, self.G.synthesis)
        self.discriminate = compiled_if(config.use_compile, self.D)
        self.encode = compiled_if(config.use_compile, self.E) if self.E else None
        self.scalars: dict[str, Tensor] = {}

    def _networks(self) -> tuple[Generator, Discriminator]:
        """Make the two that learn from one another."""
        config = self.config
        widths: dict[str, Any] = dict(channel_base=config.channel_base, channel_max=config.channel_max)
        G = Generator(
            config.z_dim, 0, config.w_dim, config.img_resolution, 3, dict(num_layers=config.mapping_layers), widths
        )
        return G, Discriminator(0, config.img_resolution, 3, **widths)

    # ---- State ------------------------------------------------------------------------------------------------------

    def nets(self) -> dict[str, nn.Module]:
        """The networks by their usual names."""
        nets: dict[str, nn.Module] = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        return nets | ({"E": self.E} if self.E else {}) | ({"critic": self.critic} if self.critic else {})

    @property
    def kimg(self) -> float:
        """Thousands of real pictures shown so far."""
        return self.step * self.config.batch_size / 1000

    @property
    def is_over(self) -> bool:
        """Whether the run has reached its end."""
        return self.kimg >= self.config.kimg

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on exactly."""
        optimizers = {"opt_G": self.opt_G, "opt_D": self.opt_D, "opt_E": self.opt_E, "opt_C": self.opt_C}
        return {
            "step": self.step,
            "ada_p": self.ada_p,
            "pl_mean": self.pl_mean,
            **{name: net.state_dict() for name, net in self.nets().items()},
            **{name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`, which a run with the same networks saved.

        Raises:
            InputError: one of the two runs has a second critic and the other has none.
        """
        if ("critic" in state) != (self.critic is not None):
            hint = "keep the face network and critic_weight (0 or above) as they were, or use another folder"
            raise InputError(f"the run was begun with{'' if 'critic' in state else 'out'} a second critic", hint=hint)
        self.step, self.ada_p, self.pl_mean = state["step"], state["ada_p"], state["pl_mean"]
        for name, net in self.nets().items():
            net.load_state_dict(state[name])
        for name in ("opt_G", "opt_D", "opt_E", "opt_C"):
            optimizer = getattr(self, name)
            wanted = [{"lr": group["lr"], "betas": group["betas"]} for group in optimizer.param_groups]
            optimizer.load_state_dict(state[name])
            for group, settings in zip(optimizer.param_groups, wanted, strict=True):
                group.update(settings)  # the config's, which may have changed

    # ---- Parts of a step --------------------------------------------------------------------------------------------

    def _random(self) -> torch.Generator:
        """Seed this step's randomness, torch's own included."""
        words = np.random.SeedSequence([self.config.seed, self.step, rank()]).generate_state(2)
        torch.manual_seed(int(words[0]))
        return torch.Generator(device=self.device).manual_seed(int(words[1]))

    def _real(self, rng: torch.Generator) -> Tensor:
        pixels = self.pixels[share(self.batches.at(self.step)).to(self.device)]
        flips = torch.rand([len(pixels), 1, 1, 1], generator=rng, device=self.device) < 0.5
        return torch.where(flips, pixels.flip(3), pixels).float() / 127.5 - 1

    def _map(self, num: int, rng: torch.Generator) -> Tensor:
        """Draw ws with style mixing; a mapping that learns moves its mean."""
        G, config = self.G, self.config
        z = torch.randn([2, num, G.z_dim], generator=rng, device=self.device)
        ws = G.mapping(z[0], update_emas=any(weight.requires_grad for weight in G.mapping.parameters()))
        crossover = torch.randint(1, G.num_ws, [num, 1, 1], generator=rng, device=self.device)
        is_mixed = torch.rand([num, 1, 1], generator=rng, device=self.device) < config.style_mixing_prob
        rows = torch.arange(G.num_ws, device=self.device)[None, :, None]
        return torch.where(is_mixed & (rows >= crossover), G.mapping(z[1]), ws)

    def encode_pictures(self, img: Tensor) -> Tensor:
        """Find the codes [N, num_ws, w_dim] of img [N, 3, H, H]."""
        assert self.encode is not None
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            ws: Tensor = self.encode(img)
        return ws

    def _score(self, img: Tensor, rng: torch.Generator) -> Tensor:
        if self.config.ada_target > 0:
            img = augment(img, self.ada_p, rng)
        logits: Tensor = self.discriminate(img, dtype=self.dtype)
        return logits

    def _critic_loss(self, img: Tensor, rng: torch.Generator, *, as_real: bool) -> Tensor:
        """Ask the critic about pictures moved a little, so that it learns no places by heart."""
        assert self.critic is not None
        side = img.shape[-1]
        most = side // 16
        dx, dy = torch.randint(0, 2 * most + 1, [2], generator=rng, device=self.device).tolist()
        img = F.pad(img, (most, most, most, most), mode="reflect")[:, :, dy : dy + side, dx : dx + side]
        return self.critic.loss(augment(img, self.ada_p, rng), as_real=as_real)

    def _reconstruction_loss(self, img: Tensor, real: Tensor) -> Tensor:
        config = self.config
        distance = pyramid_distance(img, real).mean()
        self.scalars["loss/reconstruction"] = distance.detach()
        loss = config.reconstruction_weight * distance
        if self.perceptual is not None and config.perceptual_weight > 0:
            perceptual = self.perceptual(img, real).mean()
            self.scalars["loss/perceptual"] = perceptual.detach()
            loss = loss + config.perceptual_weight * perceptual
        return loss

    def _update(self, *optimizers: torch.optim.Optimizer) -> None:
        for optimizer in optimizers:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            average_(gradients)
            for gradient in gradients:
                torch.nan_to_num(gradient, nan=0, posinf=1e5, neginf=-1e5, out=gradient)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _ties(self, ws: Tensor, img: Tensor) -> Tensor | float:  # noqa: ARG002
        """What else the loss of G asks of what it rendered; who starts from nothing is bound to nothing."""
        return 0.0

    def _autoencoder_step(self, real: Tensor) -> None:
        ws = self.encode_pictures(real)
        img = self.synthesis(ws, noise_mode="random", dtype=self.dtype)
        moments = code_moments(ws.mean(dim=1))
        self.scalars["code/moments"] = moments.detach()
        (self._reconstruction_loss(img, real) + self.config.moments_weight * moments).backward()
        self._update(self.opt_G, self.opt_E)

    @torch.no_grad()
    def _end_autoencoder(self) -> None:
        """Make W the space that the encoder writes to; averages of squared gradients begin anew."""
        assert self.E is not None
        E = copy.deepcopy(self.E).cpu()
        features = torch.cat([self.E.features(some.float() / 127.5 - 1).cpu() for some in self.pixels.split(256)])
        for G in (self.G, self.G_ema):
            white, E_white, share = whiten(copy.deepcopy(G).cpu(), E, features, seed=self.config.seed)
            G.load_state_dict(white.state_dict())
            self.E.load_state_dict(E_white.state_dict())
            self.scalars["code/share"] = torch.as_tensor(share)
        self.opt_G.state.clear()
        self.opt_E.state.clear()

    def _generator_step(self, real: Tensor, rng: torch.Generator) -> Tensor:
        """Train G (and E) and return what was rendered."""
        config = self.config
        num_coded = round(config.encoder_share * len(real))
        ws = self._map(len(real) - num_coded, rng)
        if num_coded:
            coded = self.encode_pictures(real[:num_coded])
            ws = torch.cat([ws, coded])
        img: Tensor = self.synthesis(ws, noise_mode="random", dtype=self.dtype)
        with _frozen(self.D, *([self.critic] if self.critic else [])):
            logits = self._score(img, rng)
            loss = F.softplus(-logits).mean() + self._ties(ws, img)
            if self.critic is not None:
                seen = self._critic_loss(img, rng, as_real=True)
                self.scalars["critic/G"] = seen.detach()
                loss = loss + config.critic_weight * seen
            self.scalars |= {"loss/G": loss.detach(), "score/fake": logits.detach().mean()}
            if num_coded:
                loss = loss + self._reconstruction_loss(img[-num_coded:], real[:num_coded])
                base = coded.mean(dim=1)
                drift = moments_apart(base, ws[: len(real) - num_coded, -1].detach())
                offsets = (coded - base[:, None]).square().mean()
                self.scalars |= {"code/drift": drift.detach(), "code/offsets": offsets.detach()}
                loss = loss + config.moments_weight * drift + config.offsets_weight * offsets
            loss.backward()
        if num_coded:
            num_drawn = len(real) - num_coded
            found, known = self.encode_pictures(img[:num_drawn].detach()), ws[:num_drawn].detach()
            error = (found.mean(dim=1) - known.mean(dim=1)).square().mean()
            self.scalars["loss/latent"] = error.detach()
            (config.latent_weight * error).backward()
        self._update(self.opt_G, self.opt_E)
        return img.detach()

    def _path_length_step(self, rng: torch.Generator) -> None:
        """Karras et al. 2020, Sec. 3.2: equal steps in w make equal steps in the picture."""
        ws = self._map(max(1, self.config.batch_size // 2), rng)
        img = self.G.synthesis(ws, noise_mode="random")
        noise = torch.randn(img.shape, generator=rng, device=self.device) / (img.shape[2] * img.shape[3]) ** 0.5
        (jacobian,) = torch.autograd.grad((img * noise).sum(), ws, create_graph=True)
        lengths = jacobian.square().sum(dim=2).mean(dim=1).sqrt()
        self.pl_mean = self.pl_mean.lerp(lengths.detach().mean(), 0.01)
        penalty = (lengths - self.pl_mean).square().mean()
        (penalty * self.config.pl_weight * self.config.pl_interval).backward()
        self.scalars["loss/path_length"] = penalty.detach()
        self._update(self.opt_G)

    def _discriminator_step(self, real: Tensor, fake: Tensor, rng: torch.Generator) -> None:
        config = self.config
        fake_logits = self._score(fake, rng)
        F.softplus(fake_logits).mean().backward()
        real_logits = self._score(real, rng)
        F.softplus(-real_logits).mean().backward()
        if self.step % config.r1_interval == 0:
            self._add_r1(real, rng)
        self._update(self.opt_D)
        if self.critic is not None:
            told = self._critic_loss(fake, rng, as_real=False) + self._critic_loss(real, rng, as_real=True)
            told.backward()
            self._update(self.opt_C)
            self.scalars["critic/loss"] = told.detach() / 2
        sign = real_logits.detach().sign().mean()
        self.scalars |= {"score/real": real_logits.detach().mean(), "ada/sign": sign}
        if config.ada_target > 0:
            self.ada_p = self.ada.update(self.ada_p, real_logits)
            average_([self.ada_p])
            self.scalars["ada/p"] = self.ada_p

    def _add_r1(self, real: Tensor, rng: torch.Generator) -> None:
        """Mescheder et al. 2018, arXiv:1801.04406: the gradient of D on real pictures is kept small."""
        config = self.config
        given = augment(real, self.ada_p, rng) if config.ada_target > 0 else real
        at_once = R1_AT_ONCE if self.device.type == "cpu" and given.shape[-1] > R1_SMALL_PX else len(given)
        penalties = []
        for some in given.detach().split(at_once):
            some.requires_grad_()
            logits = self.D(some, dtype=self.dtype)  # compiled graphs have no second derivatives
            (gradient,) = torch.autograd.grad(logits.sum(), some, create_graph=True)
            penalty = gradient.square().sum(dim=[1, 2, 3]).sum() / len(given)
            (penalty * (config.r1_gamma / 2 * config.r1_interval)).backward()
            penalties.append(penalty.detach())
        self.scalars["loss/r1"] = torch.stack(penalties).sum()

    @torch.no_grad()
    def average(self) -> None:
        """Move G_ema towards G."""
        config = self.config
        half_life = min(config.ema_kimg, max(self.kimg, config.batch_size / 1000) * config.ema_rampup)
        beta = 0.5 ** (config.batch_size / 1000 / half_life)
        torch._foreach_lerp_(list(self.G_ema.parameters()), list(self.G.parameters()), 1 - beta)
        average_([self.G.mapping.w_avg])
        for kept, new in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            kept.copy_(new)

    # ---- The step ---------------------------------------------------------------------------------------------------

    def train_step(self) -> dict[str, Tensor]:
        """Show one batch to every network and return what was measured, without waiting for the device."""
        config, self.scalars = self.config, {}
        rng = self._random()
        real = self._real(rng)
        if self.kimg < config.autoencoder_kimg:
            self._autoencoder_step(real)
            if (self.step + 1) * config.batch_size / 1000 >= config.autoencoder_kimg:
                self._end_autoencoder()
        else:
            fake = self._generator_step(real, rng)
            if config.pl_weight > 0 and self.step % config.pl_interval == 0:
                self._path_length_step(rng)
            self._discriminator_step(real, fake, rng)
        self.average()
        self.step += 1
        return self.scalars
