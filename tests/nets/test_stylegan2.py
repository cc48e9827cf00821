"""StyleGAN2's generator against the recorded networks, its definition, and its second derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mien.nets.ops import bias_act, modulated_conv2d, upsample2d
from mien.nets.stylegan2 import Generator, MappingNetwork

GENERATORS = (
    "sg2ada_G_skip_c0_m8",
    "sg2ada_G_skip_c3_m2",
    "sg2ada_G_resnet_c0_m8",
    "sg2nv3_G_skip_c3_m2",
    "sg2nv3_G_resnet_c0_m2",
)


def tiny_generator(**kwargs: Any) -> Generator:
    torch.manual_seed(0)
    wanted: dict[str, Any] = dict(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3)
    wanted |= dict(mapping_kwargs={"num_layers": 2}, channel_base=64, channel_max=8)
    G = Generator(**{**wanted, **kwargs})
    for block in G.synthesis.blocks():
        for layer in block.layers():
            layer.noise_strength.data.fill_(-0.2)
            layer.bias.data.normal_()
    return G


def crop32(img: Tensor) -> Tensor:
    side = img.shape[-1] // 2 - 16
    return img[:, :, side : side + 32, side : side + 32]


# ---- Recorded networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERATORS)
def test_the_mapping_agrees_with_the_recorded_one(name: str, official: Any, agree: Any) -> None:
    G, numbers = official(name, Generator)
    z, c = numbers["z"], numbers["c"]
    agree(G.mapping(z, c), numbers["w_psi1"], "psi 1")
    agree(G.mapping(z, c, truncation_psi=0.7), numbers["w_psi0.7"], "psi 0.7")
    agree(G.mapping(z, c, truncation_psi=0.7, truncation_cutoff=4), numbers["w_psi0.7_cut4"], "cutoff 4")
    agree(G.mapping(z, c, truncation_psi=-1), numbers["w_psi-1"], "psi -1")


@pytest.mark.parametrize("name", GENERATORS)
def test_pictures_agree_with_the_recorded_ones(name: str, official: Any, agree: Any) -> None:
    G, numbers = official(name, Generator)
    z, c, ws = numbers["z"], numbers["c"], numbers["w_psi1"]
    agree(G.synthesis(ws, noise_mode="const"), numbers["img_psi1_const"], "const")
    agree(crop32(G.synthesis(ws, noise_mode="none")), numbers["img_psi1_none_crop32"], "none")
    torch.manual_seed(123)
    agree(crop32(G.synthesis(ws, noise_mode="random")), numbers["img_psi1_random_seed123_crop32"], "random")
    agree(crop32(G(z, c, 0.7, noise_mode="const")), numbers["img_psi0.7_const_crop32"], "psi 0.7")
    agree(crop32(G(z, c, 0.7, 4, noise_mode="const")), numbers["img_psi0.7_cut4_const_crop32"], "cutoff")
    agree(crop32(G.synthesis(numbers["ws_plus"], noise_mode="const")), numbers["img_wplus_const_crop32"], "W+")


@pytest.mark.parametrize("name", GENERATORS)
def test_feature_maps_agree_with_the_recorded_ones(name: str, official: Any, agree: Any) -> None:
    G, numbers = official(name, Generator)
    seen: dict[str, Tensor] = {}
    for block in G.synthesis.blocks():
        block.register_forward_hook(lambda b, _, out: seen.update({f"b{b.resolution}": out[0]}))
    G.synthesis(numbers["w_psi1"], noise_mode="const")
    for block, x in seen.items():
        agree(x[:, :4, :4, :4], numbers[f"feat_{block}_head"], block)
        stats = torch.stack([x.mean(), x.std(), x.abs().max()])
        agree(stats, numbers[f"feat_{block}_stats"], f"{block} statistics")


@pytest.mark.parametrize("name", GENERATORS)
def test_gradients_of_the_generator_agree(name: str, official: Any, agree: Any, gradient: Any) -> None:
    """Within rounding in float64; in float32 a unit at the kink of its leaky ReLU may take the other side."""
    G, numbers = official(name, Generator)
    for dtype, tolerance in ((torch.float64, 5e-6), (torch.float32, 1e-3)):
        G.to(dtype)
        ws, noise = numbers["ws_plus"].to(dtype).requires_grad_(), G.synthesis.noise_maps()
        last = noise[-1].requires_grad_()
        to_ws, to_noise = gradient(G.synthesis(ws, noise_mode="const", noise=noise, dtype=dtype), ws, last)
        agree(to_ws, numbers["grad_ws"], ("ws", dtype), tolerance)
        agree(to_noise[0, 0], numbers["grad_noise_last"], ("noise", dtype), tolerance)


@pytest.mark.slow
def test_the_full_size_network_agrees_with_the_recorded_one(recorded: Any, by_recipe: Any) -> None:
    numbers = recorded("recipe_sg2ada_ffhq256")
    seed = numbers.meta["seed"]
    G = Generator(**numbers.meta["kwargs"]).requires_grad_(False)
    G.load_state_dict(by_recipe(G.state_dict(), seed))
    ws = G.mapping(torch.from_numpy(np.random.RandomState(seed).standard_normal((1, 512))))
    torch.testing.assert_close(ws[:, 0].float(), numbers["w"], rtol=0, atol=1e-4)
    img = G.synthesis(ws.float(), noise_mode="const")
    tolerance = 1e-4 * numbers["img_stats"][1].item()
    for actual, name in (
        (crop32(img), "img_crop32_centre"),
        (img[:, :, :16, :16], "img_crop16_topleft"),
        (F.adaptive_avg_pool2d(img, 32), "img_avgpool_to_32"),
        (torch.stack([img.mean(), img.std(), img.abs().max()]), "img_stats"),
    ):
        torch.testing.assert_close(actual, numbers[name], rtol=0, atol=tolerance, msg=name)


# ---- Mapping --------------------------------------------------------------------------------------------------------


def test_truncation_moves_the_first_rows_towards_the_mean() -> None:
    G = tiny_generator()
    G.w_avg.normal_()
    z = torch.randn(2, 8)
    ws = G.mapping(z)
    assert torch.equal(G.mapping(z, truncation_psi=0)[0, 3], G.w_avg)
    half = G.mapping(z, truncation_psi=0.5, truncation_cutoff=2)
    torch.testing.assert_close(half[:, :2], (ws[:, :2] + G.w_avg) / 2)
    assert torch.equal(half[:, 2:], ws[:, 2:])


def test_the_length_of_z_does_not_matter() -> None:
    G, z = tiny_generator(), torch.randn(2, 8)
    torch.testing.assert_close(G.mapping(z), G.mapping(7 * z))


def test_training_moves_the_mean_of_w_slowly() -> None:
    mapping = MappingNetwork(8, 0, 8, 5, num_layers=1, w_avg_beta=0.9)
    ws = mapping(torch.randn(4, 8), update_emas=True)
    torch.testing.assert_close(mapping.w_avg, 0.1 * ws[:, 0].mean(dim=0))


def test_labels_change_the_face() -> None:
    G, z, c = tiny_generator(c_dim=2), torch.randn(1, 8), torch.eye(2)
    assert not torch.allclose(G.mapping(z, c[:1]), G.mapping(z, c[1:]))


# ---- Synthesis ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("img_resolution", [4, 8, 32])
def test_there_is_a_row_for_every_layer(architecture: str, img_resolution: int) -> None:
    G = tiny_generator(img_resolution=img_resolution, synthesis_kwargs={"architecture": architecture})
    assert G.num_ws == 2 * int(math.log2(img_resolution)) - 2
    assert len(G.synthesis.noise_shapes()) == G.num_ws - 1
    assert G(torch.randn(2, 8)).shape == (2, 3, img_resolution, img_resolution)


def test_an_orig_generator_is_its_definition() -> None:
    """Karras et al. 2020, Fig. 7: layers one after another, colours from the last feature maps alone."""
    G = tiny_generator(synthesis_kwargs={"architecture": "orig"})
    ws = torch.randn(2, G.num_ws, 8)
    layers = [layer for block in G.synthesis.blocks() for layer in block.layers()]
    x = G.synthesis.b4.const.expand(2, -1, -1, -1)
    for i, layer in enumerate(layers):
        x = layer(x, ws[:, i], noise_mode="const")
    img = G.synthesis.b16.torgb(x, ws[:, len(layers)])
    torch.testing.assert_close(G.synthesis(ws, noise_mode="const"), img)
    assert [name for name, _ in G.synthesis.named_children() if hasattr(getattr(G.synthesis, name), "torgb")] == ["b16"]


def test_a_skip_generator_adds_up_pictures() -> None:
    G = tiny_generator()
    ws = torch.randn(1, G.num_ws, 8)
    x, img = None, torch.zeros(1, 3, 2, 2)
    row = 0
    for block in G.synthesis.blocks():
        x, seen = block(x, None, ws[:, row:], noise_mode="const", noise=[None] * 2, dtype=torch.float32)
        row += block.num_conv
        img = upsample2d(img, block.resample_filter) + seen
    torch.testing.assert_close(G.synthesis(ws, noise_mode="const"), img)


def test_flat_and_nested_arguments_make_the_same_network() -> None:
    flat = tiny_generator(channel_base=32, conv_clamp=256)
    assert flat.init_kwargs["synthesis_kwargs"] == {"channel_base": 32, "channel_max": 8, "conv_clamp": 256}
    again = Generator(**flat.init_kwargs)
    assert again.init_kwargs == flat.init_kwargs
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in flat.state_dict().items()}


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
    assert not torch.allclose(G.synthesis(ws, noise_mode="const", noise=own), const)
    assert torch.equal(G.synthesis(ws, noise_mode="const"), const), "copies were changed, not the network"


def test_a_layer_adds_its_noise_before_bias_and_activation() -> None:
    layer = tiny_generator().synthesis.b16.conv1
    x, w = torch.randn(1, 4, 16, 16), torch.randn(1, 8)
    plain = modulated_conv2d(x, layer.weight, layer.affine(w), padding=1)
    expected = bias_act(plain - 0.2 * layer.noise_const, layer.bias, act="lrelu")
    torch.testing.assert_close(layer(x, w, noise_mode="const"), expected)


def test_a_change_of_weights_is_seen_at_once() -> None:
    """What inference keeps of a weight must not outlive it."""
    G = tiny_generator().requires_grad_(False)
    ws = torch.randn(1, G.num_ws, 8)

    def render() -> Tensor:
        return G.synthesis(ws, noise_mode="const")

    before = render()
    weight = G.synthesis.b8.conv0.weight
    weight.mul_(2)
    torch.testing.assert_close(render(), before)  # demodulation undoes a factor
    weight[0] += 1
    changed = render()
    assert not torch.allclose(changed, before)
    G.load_state_dict(tiny_generator().state_dict())
    torch.testing.assert_close(render(), before)
    G.synthesis.b8.conv0.weight.data = weight + 1
    assert not torch.allclose(render(), before)


def test_gradients_follow_after_inference_mode() -> None:
    G = tiny_generator().requires_grad_(False)
    ws = torch.randn(1, G.num_ws, 8)
    with torch.inference_mode():
        before = G.synthesis(ws, noise_mode="const", dtype=torch.bfloat16)
    img = G.synthesis(ws.requires_grad_(), noise_mode="const", dtype=torch.bfloat16)
    assert torch.equal(img.detach(), before)
    assert torch.autograd.grad(img.sum(), ws)[0].abs().sum() > 0


def test_clamping_limits_feature_maps() -> None:
    G = tiny_generator(conv_clamp=0.5)
    seen: list[float] = []
    for block in G.synthesis.blocks():
        block.register_forward_hook(lambda _, __, out: seen.append(out[0].abs().max().item()))
    G(torch.randn(2, 8), noise_mode="const")
    assert seen == [0.5, 0.5, 0.5]


def test_a_batch_is_its_pictures() -> None:
    G = tiny_generator()
    z = torch.randn(3, 8)
    img = G(z, noise_mode="const")
    torch.testing.assert_close(img, torch.cat([G(one, noise_mode="const") for one in z.split(1)]))


def test_bfloat16_is_close_to_float32() -> None:
    G = tiny_generator(img_resolution=32, channel_base=1024, channel_max=32)
    ws = G.mapping(torch.randn(2, 8))
    exact = G.synthesis(ws, noise_mode="const")
    half = G.synthesis(ws, noise_mode="const", dtype=torch.bfloat16)
    assert half.dtype == torch.float32
    assert (half - exact).square().mean().sqrt() < 0.01 * exact.std()


# ---- What cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("img_resolution", [0, -8, 2, 17, 48])
def test_a_side_that_is_no_power_of_two_is_said(img_resolution: int) -> None:
    with pytest.raises(ValueError, match=f"power of two from 4 up, got {img_resolution}"):
        tiny_generator(img_resolution=img_resolution)


def test_unknown_names_are_said() -> None:
    with pytest.raises(ValueError, match="architecture must be one of orig, skip, resnet, got 'fancy'"):
        tiny_generator(synthesis_kwargs={"architecture": "fancy"})
    G = tiny_generator()
    with pytest.raises(ValueError, match="noise_mode must be const, random or none, got 'zero'"):
        G(torch.randn(1, 8), noise_mode="zero")


def test_wrong_shapes_are_not_taken() -> None:
    G = tiny_generator()
    for wrong in (torch.zeros(1, 5, 8), torch.zeros(1, 6, 7), torch.zeros(6, 8)):
        with pytest.raises(AssertionError):
            G.synthesis(wrong)
    with pytest.raises(AssertionError):
        G.mapping(torch.zeros(1, 9))


# ---- Second derivatives ---------------------------------------------------------------------------------------------


def test_path_length_has_exact_gradients(check_penalty: Callable[..., None]) -> None:
    """Karras et al. 2020, Eq. 4: the length of J'y for random pictures y."""
    G = tiny_generator(img_resolution=8, channel_max=2, w_dim=3).double()
    ws = torch.randn(2, G.num_ws, 3, dtype=torch.float64).requires_grad_()
    y = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def path_length(synthesis: Callable[..., Tensor]) -> Tensor:
        img = synthesis(ws, noise_mode="const", dtype=torch.float64)
        (grad,) = torch.autograd.grad((img * y).sum(), ws, create_graph=True)
        return grad.square().sum(2).mean(1).sqrt().mean()

    names = ["b4.const", "b8.conv0.weight", "b8.conv1.weight", "b8.conv1.affine.weight", "b8.torgb.weight"]
    check_penalty(G.synthesis, path_length, names)
