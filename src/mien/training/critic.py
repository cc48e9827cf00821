"""A second critic, which sees pictures through a face network that knows faces already.

A discriminator that starts from nothing spends its first hundred thousand pictures on learning what a face is. Small
heads on the frozen maps of a trained network know it from the first step, and tell the generator what is wrong with a
face; the discriminator beside them keeps watch over backgrounds, colours and finest detail.

Source: Sauer et al. 2021 (Projected GANs), arXiv:2111.01007; Kumari et al. 2022 (vision-aided GAN), arXiv:2112.09130.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["FeatureCritic", "Maps"]

Maps = Callable[[Tensor], Sequence[Tensor]]
"""Feature maps [N, C, H, W] of pictures, of one scale each; gradients flow to the pictures."""

WIDTH = 64
NUM_GROUPS = 8


class _Head(nn.Module):
    """Normalises a map by its channels' spread on real pictures, mixes them at random, and scores every place."""

    mean: Tensor
    std: Tensor
    mixing: Tensor

    def __init__(self, real: Tensor, rng: torch.Generator) -> None:
        super().__init__()
        channels = real.shape[1]
        self.register_buffer("mean", real.mean(dim=[0, 2, 3]))
        self.register_buffer("std", real.std(dim=[0, 2, 3]) + 1e-4)
        mixing = torch.randn([WIDTH, channels, 1, 1], generator=rng, device=rng.device) / channels**0.5
        self.register_buffer("mixing", mixing.to(real.device))
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1)),
            nn.GroupNorm(NUM_GROUPS, WIDTH),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1)),
            nn.GroupNorm(NUM_GROUPS, WIDTH),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = (x.float() - self.mean[:, None, None]) / self.std[:, None, None]
        scores: Tensor = self.layers(F.conv2d(x, self.mixing))
        return scores.flatten(1)  # [N,places]


class FeatureCritic(nn.Module):
    """Score pictures by heads on frozen maps.

    Args:
        maps: the frozen network; it belongs to the caller and is not saved.
        real: pictures [N, 3, H, H] in [-1, 1] to take the maps' spread from.
        seed: of the random mixing of channels.
    """

    def __init__(self, maps: Maps, real: Tensor, *, seed: int = 0) -> None:
        super().__init__()
        assert not isinstance(maps, nn.Module), "a module would be trained and saved; give its method"
        self.maps = maps
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.heads = nn.ModuleList(_Head(one.float(), rng) for one in maps(real))

    def forward(self, img: Tensor) -> list[Tensor]:
        """Score img [N, 3, H, H] in [-1, 1]: logits [N, places] for each map, above 0 for real ones."""
        return [head(one) for head, one in zip(self.heads, self.maps(img), strict=True)]

    def loss(self, img: Tensor, *, as_real: bool) -> Tensor:
        """Cross-entropy of taking all of `img` for real (or for generated), averaged over maps and places."""
        sign = -1 if as_real else 1
        return torch.stack([F.softplus(sign * logits).mean() for logits in self(img)]).mean()
