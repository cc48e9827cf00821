"""The encoder: shapes, independence of the batch, freed rows, and its size as shipped."""

from __future__ import annotations

import pytest
import torch

from mien.nets.encoder import Encoder, look, looking
from mien.nets.stylegan2 import Generator


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    net = Encoder(32, 8, 12, in_resolution=16, channels=(8, 8, 8), hidden=16)
    net.w_avg.copy_(torch.randn(12))
    return net


def test_a_code_does_not_depend_on_its_batch(encoder: Encoder) -> None:
    img = torch.rand(3, 3, 32, 32) * 2 - 1
    together = encoder(img)
    assert together.shape == (3, 8, 12)
    torch.testing.assert_close(together[1:2], encoder(img[1:2]))


def test_rows_that_are_not_free_are_the_base_code(encoder: Encoder) -> None:
    img = torch.rand(1, 3, 32, 32)
    full, base, some = encoder(img), encoder(img, num_free=0), encoder(img, num_free=3)
    assert torch.equal(base, base[:, :1].expand_as(base))
    torch.testing.assert_close(some[:, :3], full[:, :3])
    torch.testing.assert_close(some[:, 3:], base[:, 3:])
    assert not torch.allclose(full[:, 0], full[:, 7])


def test_it_starts_near_the_mean(encoder: Encoder) -> None:
    ws = encoder(torch.rand(4, 3, 32, 32) * 2 - 1).detach()
    assert float((ws - encoder.w_avg).square().mean()) < 0.1


@pytest.mark.parametrize("side", [8, 16, 64])
def test_any_side_of_picture_is_resized_inside(encoder: Encoder, side: int) -> None:
    flat = torch.full((1, 3, side, side), 0.3)
    torch.testing.assert_close(encoder(flat), encoder(torch.full((1, 3, 16, 16), 0.3)))


def test_every_parameter_learns(encoder: Encoder) -> None:
    with torch.no_grad():
        for block in encoder.blocks:
            block.scale.fill_(0.1)
    encoder(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_bfloat16_is_close(encoder: Encoder) -> None:
    img = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        quick = encoder(img)
    assert quick.dtype == torch.float32
    torch.testing.assert_close(quick, encoder(img), atol=0.02, rtol=0.05)


@pytest.mark.parametrize(("resolution", "num_ws", "w_dim", "hidden"), [(64, 10, 256, 512), (128, 12, 512, 256)])
def test_it_fits_8_mb_in_half_precision(resolution: int, num_ws: int, w_dim: int, hidden: int) -> None:
    net = Encoder(resolution, num_ws, w_dim, hidden=hidden)
    assert sum(p.numel() for p in net.parameters()) < 4_000_000


def test_wrong_pictures_and_widths_are_refused(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match=r"img must be \[N,3,H,W\], got \[1, 1, 8, 8\]"):
        encoder(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="5 widths go with in_resolution 64 px"):
        Encoder(64, 10, 16, in_resolution=32)


def test_it_is_rebuilt_from_its_arguments(encoder: Encoder) -> None:
    twin = Encoder(**encoder.init_kwargs)
    twin.load_state_dict(encoder.state_dict())
    img = torch.rand(1, 3, 32, 32)
    assert torch.equal(twin(img), encoder(img))


def test_an_encoder_keeps_its_weights_when_it_is_to_look_more_often(encoder: Encoder) -> None:
    img = torch.rand(2, 3, 32, 32)
    thrice = looking(encoder, 3)
    assert (thrice.num_looks, encoder.num_looks) == (3, 1)
    torch.testing.assert_close(thrice(img), encoder(img))
    once = looking(thrice, 1)
    assert once.init_kwargs == encoder.init_kwargs
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(once.state_dict()[name], tensor)


def test_a_further_look_adds_to_the_code_what_the_render_lacks(encoder: Encoder) -> None:
    torch.manual_seed(1)
    G = Generator(8, 0, 12, 32, 3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=dict(channel_max=4)).eval()
    E = looking(encoder, 3)
    img = torch.rand(2, 3, 32, 32)
    first = E(img)
    second = first + 0.4 * (first - E(G.synthesis(first, noise_mode="const")))
    third = second + 0.4 * (first - E(G.synthesis(second, noise_mode="const")))
    torch.testing.assert_close(look(E, G, img), third)
    assert not torch.allclose(first, second) and not torch.allclose(second, third)
    same = G.synthesis(first, noise_mode="const")
    torch.testing.assert_close(E.further(first, E(same), same), first)  # nothing is lacking
    torch.testing.assert_close(look(looking(E, 1), G, img), first)


def test_nobody_looks_less_than_once() -> None:
    with pytest.raises(ValueError, match="looks at least once, not 0 times"):
        Encoder(32, 8, 12, num_looks=0)
