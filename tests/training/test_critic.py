"""The second critic: learns to tell two kinds of pictures apart, and its gradient reaches the pictures."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mien.training.critic import FeatureCritic


def maps(img: Tensor) -> list[Tensor]:
    """Slopes at two scales, as a frozen network might see them."""
    small = F.avg_pool2d(img, 2)
    return [torch.cat([x, x - x.roll(1, 3), x - x.roll(1, 2)], dim=1) for x in (img, small)]


def _pictures(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise, and noise of the same spread that is smooth."""
    noise = torch.randn([num, 3, 16, 16], generator=torch.Generator().manual_seed(seed)) * 0.3
    smooth = F.avg_pool2d(noise, 3, 1, 1)
    return noise, smooth * noise.std() / smooth.std()


def test_it_learns_to_tell_two_kinds_apart() -> None:
    torch.manual_seed(0)
    real, fake = _pictures(64, 0)
    critic = FeatureCritic(maps, real)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.01, betas=(0.0, 0.99))
    for _ in range(20):
        loss = critic.loss(real, as_real=True) + critic.loss(fake, as_real=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real, fake = _pictures(16, 1)
    with torch.no_grad():
        assert all(a.mean() > b.mean() + 1 for a, b in zip(critic(real), critic(fake), strict=True))
        assert critic.loss(real, as_real=True) < math.log(2) < critic.loss(fake, as_real=True)


def test_loss_is_the_cross_entropy_averaged_over_maps() -> None:
    real, _ = _pictures(4, 0)
    critic = FeatureCritic(maps, real)
    critic.eval()
    with torch.no_grad():
        scores = critic(real)
        assert [s.shape for s in scores] == [(4, 64), (4, 16)]
        wanted = sum(-s.sigmoid().log().mean() for s in scores) / 2
        torch.testing.assert_close(critic.loss(real, as_real=True), wanted)
        wanted = sum(-(1 - s.sigmoid()).log().mean() for s in scores) / 2
        torch.testing.assert_close(critic.loss(real, as_real=False), wanted)


def test_gradient_reaches_the_pictures_and_the_frozen_network_is_not_saved() -> None:
    real, _ = _pictures(4, 0)

    class Frozen(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones([]))

        def maps(self, img: Tensor) -> list[Tensor]:
            return maps(img * self.scale)

    critic = FeatureCritic(Frozen().maps, real)
    assert not any("scale" in name for name in critic.state_dict())
    img = real.clone().requires_grad_()
    critic.loss(img, as_real=True).backward()
    assert img.grad is not None and img.grad.abs().sum() > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_mixing_is_of_the_seed(seed: int) -> None:
    real, _ = _pictures(4, 0)
    mixing = [FeatureCritic(maps, real, seed=s).heads[0].mixing for s in (seed, seed, seed + 1)]
    assert torch.equal(mixing[0], mixing[1]) and not torch.equal(mixing[0], mixing[2])
