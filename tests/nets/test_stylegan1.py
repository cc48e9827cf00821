"""StyleGAN against its definition: two ways to double the resolution, noise per map, normalisation and style."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mien.nets.stylegan1 import Generator, MappingNetwork, SynthesisLayer, adaptive_instance_norm


def tiny_generator(**kwargs: Any) -> Generator:
    torch.manual_seed(0)
    wanted: dict[str, Any] = dict(z_dim=6, c_dim=0, w_dim=8, img_resolution=16, img_channels=3)
    wanted |= dict(mapping_kwargs={"num_layers": 2}, synthesis_kwargs={"channel_base": 64, "channel_max": 8})
    G = Generator(**{**wanted, **kwargs})
    for block in G.synthesis.blocks():
        for layer in block.layers():
            layer.noise_strength.data.normal_()
            layer.bias.data.normal_()
    return G.requires_grad_(False)


# ---- Mapping --------------------------------------------------------------------------------------------------------


def test_the_mapping_is_its_definition() -> None:
    """The gain of a layer is on its weights and not on its biases; learning rates are a hundred times smaller."""
    G, z = tiny_generator(), torch.randn(3, 6)
    G.mapping.fc0.bias.normal_().mul_(100)
    w = z / z.square().mean(dim=1, keepdim=True).sqrt()
    for layer in (G.mapping.fc0, G.mapping.fc1):
        w = w @ (layer.weight.T * 0.01 * math.sqrt(2 / w.shape[1])) + 0.01 * layer.bias
        w = F.leaky_relu(w, 0.2)
    ws = G.mapping(z)
    assert ws.shape == (3, 6, 8) == (3, G.num_ws, G.w_dim)
    torch.testing.assert_close(ws[:, 4], w)


def test_labels_are_embedded_beside_z_and_normalised_with_it() -> None:
    mapping = MappingNetwork(6, 3, 8, 4, num_layers=1).requires_grad_(False)
    z, c = torch.randn(2, 6), torch.eye(3)[:2]
    x = torch.cat([z, c @ mapping.embed.weight.T], dim=1)
    x = x / x.square().mean(dim=1, keepdim=True).sqrt()
    expected = F.leaky_relu(x @ mapping.fc0.weight.T * 0.01 * math.sqrt(2 / 12), 0.2)
    torch.testing.assert_close(mapping(z, c)[:, 0], expected)
    assert sorted(mapping.state_dict()) == ["embed.weight", "fc0.bias", "fc0.weight", "w_avg"]


def test_truncation_takes_the_first_rows() -> None:
    G, z = tiny_generator(), torch.randn(2, 6)
    G.w_avg.normal_()
    ws, half = G.mapping(z), G.mapping(z, truncation_psi=0.5, truncation_cutoff=4)
    torch.testing.assert_close(half[:, :4], (ws[:, :4] + G.w_avg) / 2)
    assert torch.equal(half[:, 4:], ws[:, 4:])


# ---- Layers ---------------------------------------------------------------------------------------------------------


def up_layer(*, is_fused: bool) -> SynthesisLayer:
    torch.manual_seed(1)
    layer = SynthesisLayer(3, 2, w_dim=4, resolution=10, is_up=True, is_fused=is_fused)
    layer.noise_strength.data.normal_()
    return layer.requires_grad_(False)


def blurred(x: Tensor) -> Tensor:
    taps = torch.tensor([1.0, 2, 1]) / 4
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


def test_below_128_px_neighbours_are_repeated_then_convolved_then_blurred() -> None:
    layer, x = up_layer(is_fused=False), torch.randn(2, 3, 5, 5)
    y = F.conv2d(F.interpolate(x, scale_factor=2), layer.weight * math.sqrt(2 / 27), padding=1)
    torch.testing.assert_close(layer.convolve(x), blurred(y))


def test_from_128_px_on_every_pixel_paints_four_shifted_copies_of_the_weight() -> None:
    layer, x = up_layer(is_fused=True), torch.randn(2, 3, 5, 5)
    weight, y = layer.weight * math.sqrt(2 / 27), torch.zeros(2, 2, 13, 13)
    for row in range(5):
        for column in range(5):
            painted = torch.einsum("ni,oihw->nohw", x[:, :, row, column], weight)
            for dy in (0, 1):
                for dx in (0, 1):
                    y[:, :, 2 * row + dy :, 2 * column + dx :][:, :, :3, :3] += painted
    torch.testing.assert_close(layer.convolve(x), blurred(y[:, :, 1:11, 1:11]))
    assert not torch.allclose(layer.convolve(x), up_layer(is_fused=False).convolve(x)), "they are two operations"


def test_the_resolution_decides_how_it_is_doubled() -> None:
    G = tiny_generator(img_resolution=32, synthesis_kwargs={"channel_base": 64, "channel_max": 4, "fused_from": 16})
    assert [block.layer0.is_fused for block in G.synthesis.blocks()] == [False, False, True, True]
    whole = Generator(4, 0, 4, 256, 3, synthesis_kwargs={"channel_base": 256, "channel_max": 2})
    assert [block.resolution for block in whole.synthesis.blocks() if block.layer0.is_fused] == [128, 256]


def test_normalisation_gives_each_map_the_moments_of_its_style() -> None:
    """Karras et al. 2019, Eq. 1; scales are stored less one."""
    x, style = torch.randn(2, 3, 9, 9) * 5 + 2, torch.randn(2, 6)
    y = adaptive_instance_norm(x, style, 0.0)
    torch.testing.assert_close(y.std(dim=(2, 3), correction=0), (style[:, :3] + 1).abs())
    torch.testing.assert_close(y.mean(dim=(2, 3)), style[:, 3:], atol=1e-5, rtol=0)
    flat = adaptive_instance_norm(torch.ones(2, 3, 9, 9), style, 1e-8)
    assert torch.equal(flat, style[:, 3:, None, None].expand(2, 3, 9, 9)), "maps without variance stay finite"


def test_a_layer_adds_noise_by_map_then_biases_then_bends_then_styles() -> None:
    layer = tiny_generator().synthesis.b16.layer1
    x, w = torch.randn(2, 4, 16, 16), torch.randn(2, 8)
    y = F.conv2d(x, layer.weight * math.sqrt(2 / 36), padding=1)
    y = y + layer.noise_const * layer.noise_strength[:, None, None] + layer.bias[:, None, None]
    expected = adaptive_instance_norm(F.leaky_relu(y, 0.2), layer.affine(w), 1e-8)
    torch.testing.assert_close(layer(x, w, noise_mode="const"), expected)


# ---- The network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("img_resolution", [4, 8, 32])
def test_there_is_a_row_and_a_noise_map_for_every_layer(img_resolution: int) -> None:
    G = tiny_generator(img_resolution=img_resolution)
    assert G.num_ws == 2 * int(math.log2(img_resolution)) - 2
    assert len(G.synthesis.noise_shapes()) == G.num_ws
    assert G(torch.randn(2, 6)).shape == (2, 3, img_resolution, img_resolution)


def test_every_row_of_ws_counts() -> None:
    G = tiny_generator()
    ws = torch.randn(1, G.num_ws, 8).requires_grad_()
    (grad,) = torch.autograd.grad(G.synthesis(ws, noise_mode="const").square().sum(), ws)
    assert (grad.abs().sum(dim=2) > 0).all()


def test_given_noise_takes_the_place_of_the_networks_own() -> None:
    G = tiny_generator()
    ws, own = torch.randn(2, G.num_ws, 8), G.synthesis.noise_maps()
    assert [tuple(m.shape[2:]) for m in own] == G.synthesis.noise_shapes()
    const = G.synthesis(ws, noise_mode="const")
    assert torch.equal(G.synthesis(ws, noise_mode="const", noise=own), const)
    none = G.synthesis(ws, noise_mode="const", noise=[torch.zeros_like(m) for m in own])
    torch.testing.assert_close(none, G.synthesis(ws, noise_mode="none"))
    assert not torch.allclose(none, const)
    own[2] += 1
    own[3] *= 2
    assert not torch.allclose(G.synthesis(ws, noise_mode="const", noise=own), const)
    assert torch.equal(G.synthesis(ws, noise_mode="const"), const), "copies were changed, not the network"
    torch.manual_seed(5)
    random = G.synthesis(ws, noise_mode="random")
    assert not torch.allclose(random, G.synthesis(ws, noise_mode="random"))


def test_a_batch_is_its_pictures() -> None:
    G, z = tiny_generator(), torch.randn(3, 6)
    img = G(z, noise_mode="const")
    torch.testing.assert_close(img, torch.cat([G(one, noise_mode="const") for one in z.split(1)]), atol=1e-5, rtol=1e-5)


def test_a_change_of_weights_is_seen_at_once() -> None:
    """What inference keeps of a weight must not outlive it, nor follow a copy."""
    G = tiny_generator()
    ws = torch.randn(1, G.num_ws, 8)
    before = G.synthesis(ws, noise_mode="const")
    other = copy.deepcopy(G)
    other.synthesis.b8.layer0.weight[0] += 1
    changed = other.synthesis(ws, noise_mode="const")
    assert not torch.allclose(changed, before)
    assert torch.equal(G.synthesis(ws, noise_mode="const"), before)
    other.requires_grad_(True)
    torch.testing.assert_close(other.synthesis(ws, noise_mode="const"), changed)
    with torch.inference_mode():
        assert torch.equal(G.synthesis(ws, noise_mode="const"), before)


def test_bfloat16_is_close_to_float32() -> None:
    G = tiny_generator(img_resolution=32, synthesis_kwargs={"channel_base": 512, "channel_max": 16})
    ws = G.mapping(torch.randn(2, 6))
    exact, half = (G.synthesis(ws, noise_mode="const", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert half.dtype == torch.float32
    assert (half - exact).square().mean().sqrt() < 0.04 * exact.std()


def test_gradients_are_exact() -> None:
    """By codes, noise and weights, through both ways of doubling."""
    G = tiny_generator(synthesis_kwargs={"channel_base": 16, "channel_max": 2, "fused_from": 16}).double()
    noise = [m.requires_grad_() for m in G.synthesis.noise_maps()]
    ws = torch.randn(1, G.num_ws, 8, dtype=torch.float64).requires_grad_()
    weights = [block.layer0.weight.requires_grad_() for block in G.synthesis.blocks()[1:]]

    def render(ws: Tensor, *_rest: Tensor) -> Tensor:
        return F.avg_pool2d(G.synthesis(ws, noise_mode="const", noise=noise, dtype=torch.float64), 4)

    assert torch.autograd.gradcheck(render, (ws, noise[2], noise[-1], *weights))


def test_its_arguments_make_it_again() -> None:
    G = tiny_generator(c_dim=2)
    again = Generator(**G.init_kwargs)
    assert again.init_kwargs == G.init_kwargs
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in G.state_dict().items()}


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="power of two from 4 up, got 48"):
        tiny_generator(img_resolution=48)
    for taps in ([], [1.0] * 33):
        with pytest.raises(ValueError, match=f"must have 1 to 32 taps, got {len(taps)}"):
            tiny_generator(synthesis_kwargs={"blur_filter": taps})
    G = tiny_generator()
    with pytest.raises(ValueError, match="noise_mode must be const, random or none, got 'zero'"):
        G(torch.randn(1, 6), noise_mode="zero")
    for wrong in (torch.zeros(1, 5, 8), torch.zeros(1, 6, 7), torch.zeros(6, 8)):
        with pytest.raises(AssertionError):
            G.synthesis(wrong)
