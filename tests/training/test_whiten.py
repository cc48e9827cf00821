"""Whitening of a code space: renders stay, codes become white, and the mapping draws where the encoder writes."""

from __future__ import annotations

import pytest
import torch

from mien.errors import InputError
from mien.nets.encoder import Encoder
from mien.nets.stylegan2 import Generator, MappingNetwork
from mien.training.whiten import rotate_mapping, whiten

WIDTHS = dict(channel_base=128, channel_max=16)


@pytest.fixture
def pair() -> tuple[Generator, Encoder]:
    """A generator, and an encoder whose rows differ."""
    torch.manual_seed(0)
    G = Generator(16, 0, 16, 16, 3, dict(num_layers=2), WIDTHS)
    E = Encoder(16, G.num_ws, 16, in_resolution=16, channels=(8, 8, 8), hidden=12)
    for head in (E.base, E.offsets):
        torch.nn.init.normal_(head.weight)
        torch.nn.init.normal_(head.bias)
    return G.eval().requires_grad_(False), E.eval().requires_grad_(False)


def test_renders_stay_where_the_axes_hold_every_code(pair: tuple[Generator, Encoder]) -> None:
    G, E = pair
    img = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    before = G.synthesis(E(img[:4]), noise_mode="none")
    G_white, E_white, share = whiten(G, E, E.features(img))  # twelve features reach twelve of sixteen axes
    assert share == pytest.approx(1, abs=1e-9)
    ws = E_white(img)
    assert torch.equal(ws, ws[:, :1].expand_as(ws))
    torch.testing.assert_close(G_white.synthesis(ws[:4], noise_mode="none"), before, atol=2e-4, rtol=1e-3)
    assert torch.equal(G.synthesis(E(img[:4]), noise_mode="none"), before)  # what was given is as it was


def test_white_codes_have_unit_variance_about_the_mean_of_the_mapping(pair: tuple[Generator, Encoder]) -> None:
    G, E = pair
    img = torch.rand(256, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    G_white, E_white, _ = whiten(G, E, E.features(img))
    w = E_white(img)[:, 0].double()
    torch.testing.assert_close(w.mean(0), G_white.mapping.w_avg.double(), atol=1e-3, rtol=0)
    variances = torch.linalg.eigvalsh(torch.cov(w.T))
    torch.testing.assert_close(variances[-12:], torch.ones(12).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("num_layers", [1, 2, 8])
def test_a_rotated_mapping_draws_white_codes(num_layers: int) -> None:
    mapping = MappingNetwork(128, 0, 128, 4, num_layers=num_layers).requires_grad_(False)
    rotate_mapping(mapping, seed=3)
    w = mapping(torch.randn([8192, 128], generator=torch.Generator().manual_seed(0)))[:, 0]
    torch.testing.assert_close(w.mean(0).mean(), mapping.w_avg[0], atol=0.03, rtol=0)
    variances = torch.linalg.eigvalsh(torch.cov(w.T))
    assert variances.mean() == pytest.approx(1, abs=0.05)
    assert variances[-1] < 1.5 + 0.25 * num_layers and variances[0] > 0.7 - 0.08 * num_layers


def test_a_mapping_of_other_widths_is_refused() -> None:
    with pytest.raises(InputError, match="only a mapping without labels and of one width"):
        rotate_mapping(MappingNetwork(8, 0, 16, 4, num_layers=2))
