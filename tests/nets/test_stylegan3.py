"""StyleGAN3 against the recorded networks, and the equivariance that it is made for."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mien.inversion.project import ProjectConfig, project
from mien.latents import latent_stats, sample_ws, synthesize
from mien.nets import generator
from mien.nets.stylegan3 import Generator, plan_bands, user_transform
from mien.weights.load import load_generator, save_generator

NETWORKS = ("sg3_G_T_c0", "sg3_G_T_c3", "sg3_G_R_c0")
ROTATING: dict[str, Any] = dict(conv_kernel=1, use_radial_filters=True)


@pytest.fixture
def official(data: Path, recorded: Any, request: pytest.FixtureRequest) -> Callable[[str], tuple[Generator, Any]]:
    """Return a network with recorded weights, and what it was recorded to do."""

    def build(name: str) -> tuple[Generator, Any]:
        folder = data if (data / f"{name}.npz").exists() else request.getfixturevalue("shared") / "fixtures"
        numbers = recorded(folder / name)
        G = Generator(**numbers.meta["kwargs"])
        G.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
        return G.eval().requires_grad_(False), numbers

    return build


def tiny_generator(**kwargs: Any) -> Generator:
    torch.manual_seed(0)
    wanted: dict[str, Any] = dict(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3)
    wanted |= dict(channel_base=128, channel_max=8)
    G = Generator(**{**wanted, **kwargs}).eval().requires_grad_(False)
    for layer in G.synthesis.layers():
        layer.bias.normal_(std=0.1)
    return G


def crop32(img: Tensor) -> Tensor:
    side = img.shape[-1] // 2 - 16
    return img[:, :, side : side + 32, side : side + 32]


def psnr(img: Tensor, wanted: Tensor) -> float:
    """In decibels, with respect to the range of `wanted`."""
    span = wanted.max() - wanted.min()
    return float(10 * (span.square() / (img - wanted).square().mean()).log10())


# ---- Recorded networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_pictures_agree_with_the_recorded_ones(name: str, official: Any, agree: Any) -> None:
    G, numbers = official(name)
    z, c, ws = numbers["z"], numbers["c"], numbers["w_psi1"]
    agree(G.mapping(z, c), ws, "psi 1")
    agree(G.mapping(z, c, truncation_psi=0.7), numbers["w_psi0.7"], "w, psi 0.7")
    agree(G.mapping(z, c, truncation_psi=0.7, truncation_cutoff=5), numbers["w_psi0.7_cut5"], "w, cutoff")
    agree(G.synthesis(ws), numbers["img_psi1"], "psi 1")
    agree(crop32(G(z, c, 0.7)), numbers["img_psi0.7_crop32"], "psi 0.7")
    agree(crop32(G(z, c, 0.7, 5)), numbers["img_psi0.7_cut5_crop32"], "cutoff")
    agree(crop32(G.synthesis(numbers["ws_plus"])), numbers["img_wplus_crop32"], "W+")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_users_transform_agrees(name: str, official: Any, agree: Any) -> None:
    G, numbers = official(name)
    transform = user_transform((0.15, -0.1), 25)
    torch.testing.assert_close(transform, numbers["transform"].float())
    wanted = numbers["img_psi1_transform_crop32"]
    agree(crop32(G.synthesis(numbers["w_psi1"], transform=transform)), wanted, "argument")
    G.synthesis.input.transform.copy_(transform)
    agree(crop32(G.synthesis(numbers["w_psi1"])), wanted, "buffer")


@pytest.mark.parametrize("name", NETWORKS)
def test_feature_maps_agree_with_the_recorded_ones(name: str, official: Any, agree: Any) -> None:
    G, numbers = official(name)
    seen: dict[str, Tensor] = {}
    for part in ("input", *G.synthesis.layer_names):
        getattr(G.synthesis, part).register_forward_hook(lambda _, args, out, part=part: seen.update({part: out}))
    G.synthesis(numbers["w_psi1"])
    for part, x in seen.items():
        agree(x[:, :4, 8:12, 8:12], numbers[f"feat_{part}_head"], part)
        agree(torch.stack([x.mean(), x.std(), x.abs().max()]), numbers[f"feat_{part}_stats"], f"{part} statistics")


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_agree(name: str, official: Any, agree: Any, gradient: Any) -> None:
    """Closely in float64; the recorded ones are float32, where a sample at the kink may take the other side."""
    G, numbers = official(name)
    for dtype, tolerance in ((torch.float64, 2e-4), (torch.float32, 1e-3)):
        ws = numbers["ws_plus"].to(dtype).requires_grad_()
        (to_ws,) = gradient(G.to(dtype).synthesis(ws, dtype=dtype), ws)
        agree(to_ws, numbers["grad_ws"], dtype, tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_is_close(name: str, official: Any) -> None:
    G, numbers = official(name)
    wanted = numbers["img_psi1"]
    img = G.synthesis(numbers["w_psi1"], dtype=torch.bfloat16)
    assert img.dtype == torch.float32
    assert (img - wanted).square().mean().sqrt() < 0.03 * wanted.std()


@pytest.mark.slow
def test_the_full_size_network_agrees(recorded: Any, by_recipe: Any) -> None:
    numbers = recorded("recipe_sg3t_256")
    G = Generator(**numbers.meta["kwargs"]).eval().requires_grad_(False)
    G.load_state_dict(by_recipe(G.state_dict(), numbers.meta["seed"]))
    z = torch.from_numpy(np.random.RandomState(numbers.meta["seed"]).standard_normal((1, 512))).float()
    ws = G.mapping(z)
    torch.testing.assert_close(ws[:, 0], numbers["w"], rtol=0, atol=1e-4)
    img = G.synthesis(ws)
    std = float(numbers["img_stats"][1])
    assert (crop32(img) - numbers["img_crop32_centre"]).abs().max() < 1e-4 * std
    assert (img[:, :, :16, :16] - numbers["img_crop16_topleft"]).abs().max() < 1e-4 * std
    assert (torch.nn.functional.adaptive_avg_pool2d(img, 32) - numbers["img_avgpool_to_32"]).abs().max() < 1e-4 * std
    fast = G.synthesis(ws, dtype=torch.bfloat16)
    assert (fast - img).square().mean().sqrt() < 0.015 * std


# ---- Equivariance ---------------------------------------------------------------------------------------------------


def test_a_translation_moves_the_picture() -> None:
    G = tiny_generator(img_resolution=64, channel_base=1024, channel_max=16)
    ws = G.mapping(torch.randn(1, 8))
    plain = G.synthesis(ws)
    moved = G.synthesis(ws, transform=user_transform((8 / 64, -4 / 64)))
    assert psnr(moved[:, :, :-4, 8:], plain[:, :, 4:, :-8]) > 45
    assert psnr(moved[:, :, :-4, 8:], plain[:, :, :-4, 8:]) < 25, "it did move"


def test_half_a_pixel_twice_is_one_pixel() -> None:
    """Between samples there is nothing to compare with but the network itself."""
    G = tiny_generator(img_resolution=64, channel_base=1024, channel_max=16)
    ws = G.mapping(torch.randn(1, 8))
    a, b = (G.synthesis(ws, transform=user_transform((shift / 64, 0))) for shift in (0.5, 4.5))
    assert psnr(b[..., 4:], a[..., :-4]) > 45


def test_a_rotation_turns_the_picture_of_r_and_not_of_t() -> None:
    found = {}
    for name, kwargs in (("r", ROTATING), ("t", {})):
        G = tiny_generator(img_resolution=64, channel_base=1024, channel_max=16, **kwargs)
        ws = G.mapping(torch.randn(1, 8))
        turned = G.synthesis(ws, transform=user_transform(rotation_deg=90))
        found[name] = psnr(turned, G.synthesis(ws).rot90(dims=(2, 3)))
    assert found["r"] > 80, "the grid turns into itself: nothing is lost"
    assert found["t"] < 30


def test_each_sample_may_have_its_own_transform() -> None:
    G = tiny_generator()
    ws = G.mapping(torch.randn(2, 8))
    transforms = torch.stack([user_transform((0.1, 0)), user_transform(rotation_deg=30)])
    both = G.synthesis(ws, transform=transforms)
    for i in range(2):
        alone = G.synthesis(ws[i : i + 1], transform=transforms[i])
        torch.testing.assert_close(both[i : i + 1], alone, rtol=0, atol=1e-5)


# ---- Layers ---------------------------------------------------------------------------------------------------------


def test_bands_of_the_paper() -> None:
    """Fig. 4c: 14 layers from cut-off 2 to the Nyquist frequency of the picture."""
    bands = plan_bands(1024, 3)
    assert len(bands) == 15
    assert bands[0].cutoff == 2 and bands[0].sampling_rate == 16 and bands[0].size == 36
    assert [b.cutoff for b in bands[-3:]] == pytest.approx([512] * 3)
    assert [b.sampling_rate for b in bands[-3:]] == [1024] * 3
    assert [b.size for b in bands[-3:]] == [1044, 1024, 1024]
    assert [b.channels for b in bands[-3:]] == [32, 32, 3]
    assert all(b.half_width > 0 for b in bands)
    steps = [b.cutoff / a.cutoff for a, b in pairwise(bands[:13])]
    assert steps == pytest.approx([steps[0]] * 12), "by equal factors"


def test_rows_follow_the_number_of_layers() -> None:
    assert tiny_generator().num_ws == 16
    G = tiny_generator(num_layers=6)
    assert G.num_ws == 8
    assert G.synthesis(G.mapping(torch.randn(1, 8))).shape == (1, 3, 16, 16)


def test_the_running_magnitude_moves_only_when_asked() -> None:
    G = tiny_generator(magnitude_ema_beta=0.75)
    ws = G.mapping(torch.randn(2, 8))
    before = {k: v.clone() for k, v in G.state_dict().items()}
    G.synthesis(ws)
    assert all(torch.equal(before[k], v) for k, v in G.state_dict().items())
    first = G.synthesis.layers()[0]
    x = G.synthesis.input(ws[:, 0])
    G.synthesis(ws, update_emas=True)
    assert float(first.magnitude_ema) == pytest.approx(0.75 + 0.25 * float(x.square().mean()))
    moved = {k for k, v in G.state_dict().items() if not torch.equal(before[k], v)}
    assert moved == {f"synthesis.{name}.magnitude_ema" for name in G.synthesis.layer_names}


@pytest.mark.parametrize("idx", [2, -1])
def test_the_running_magnitude_takes_out_the_scale_of_the_input(idx: int) -> None:
    G = tiny_generator()
    layer, w = G.synthesis.layers()[idx], torch.randn(1, 8)
    x = torch.randn(1, layer.weight.shape[1], 36 if idx > 0 else 16, 36 if idx > 0 else 16)
    y = layer(x, w)
    layer.magnitude_ema.fill_(9)
    torch.testing.assert_close(layer(3 * x, w), y, rtol=1e-4, atol=1e-5)


def test_a_batch_gives_what_one_by_one_gives() -> None:
    G = tiny_generator()
    ws = G.mapping(torch.randn(3, 8))
    torch.testing.assert_close(G.synthesis(ws)[1:2], G.synthesis(ws[1:2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("resolution", [8, 15])
def test_other_resolutions_are_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match="img_resolution must be"):
        tiny_generator(img_resolution=resolution)


def test_wrong_arguments_are_refused() -> None:
    G = tiny_generator()
    ws = G.mapping(torch.randn(1, 8))
    with pytest.raises(ValueError, match="noise_mode must be const, random or none, got 'loud'"):
        G.synthesis(ws, noise_mode="loud")
    with pytest.raises(ValueError, match="StyleGAN3 takes no noise, got 1 maps"):
        G.synthesis(ws, noise=[torch.zeros(1, 1, 4, 4)])
    with pytest.raises(ValueError, match="num_critical must be from 0 to below num_layers = 2, got 2"):
        tiny_generator(num_layers=2)


# ---- Downstream -----------------------------------------------------------------------------------------------------


def test_it_is_a_generator_like_the_others(tmp_path: Path) -> None:
    G = tiny_generator(c_dim=2)
    assert isinstance(G, generator.Generator)
    save_generator(G, tmp_path / "net.safetensors")
    loaded = load_generator(tmp_path / "net.safetensors")
    assert isinstance(loaded, Generator) and loaded.init_kwargs == G.init_kwargs
    z, c = torch.randn(1, 8), torch.eye(2)[:1]
    assert torch.equal(loaded.synthesis(loaded.mapping(z, c)), G.synthesis(G.mapping(z, c)))


def test_an_official_file_is_read(recorded: Any, agree: Any, shared: Path) -> None:
    numbers = recorded(shared / "fixtures" / "nvpkl_sg3t")
    G = load_generator(shared / "fixtures" / "nvpkl_sg3t.pkl")
    agree(G.synthesis(G.mapping(numbers["z"], numbers["c"])), numbers["G_ema_img"])
    agree(G.synthesis(G.mapping(numbers["z"], numbers["c"], truncation_psi=0.7)), numbers["G_ema_img_psi0.7"])


def test_pictures_are_projected() -> None:
    G = tiny_generator()
    img = synthesize(G, sample_ws(G, [3]))
    config = ProjectConfig(num_steps=8, prior_weight=0, offset_weight=0)
    (found,) = project(G, img, config=config, stats=latent_stats(G, num=200))
    start = synthesize(G, G.w_avg[None])
    assert not found.noise
    assert (synthesize(G, found.ws[None]) - img).square().mean() < (start - img).square().mean()
    assert math.isfinite(found.losses["total"])
