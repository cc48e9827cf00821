"""rosinality's files: recorded pictures and logits, the same file back, and what is refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import InputError, WeightsError
from mien.nets.discriminator import Discriminator
from mien.nets.stylegan2 import Generator
from mien.weights.build import build
from mien.weights.checkpoint import Found, Recipe
from mien.weights.formats import convert, read_checkpoint
from mien.weights.rosinality import matches, read, read_generator, to_tree

NAME = "rosinality_r64_w64_m8"


def networks(generator: dict[str, Any] | None = None, discriminator: dict[str, Any] | None = None) -> dict[str, Found]:
    """A small generator and discriminator, as a checkpoint has them."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(img_resolution=16, img_channels=3, c_dim=0)
    widths = dict(channel_base=128, channel_max=8)
    mapping = dict(num_layers=2)
    usual = dict(z_dim=8, w_dim=8, mapping_kwargs=mapping, synthesis_kwargs=widths)
    G = Generator(**{**sizes, **usual, **(generator or {})})
    D = Discriminator(**{**sizes, **widths, **(discriminator or {})})
    G.mapping.w_avg.normal_()
    return {
        "G_ema": Found(Recipe("stylegan2.Generator", G.init_kwargs), G.state_dict()),
        "D": Found(Recipe("discriminator.Discriminator", D.init_kwargs), D.state_dict()),
    }


@pytest.fixture
def tree() -> dict[str, Any]:
    """A file with both networks."""
    return to_tree(networks())


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Tell whether two trees of tensors are equal to the last bit."""
    if a.keys() != b.keys():
        return False
    return all(torch.equal(a[k], b[k]) if isinstance(a[k], Tensor) else same(a[k], b[k]) for k in a)


def crop32(img: Tensor) -> Tensor:
    side = img.shape[-1] // 2 - 16
    return img[:, :, side : side + 32, side : side + 32]


# ---- Recorded networks ----------------------------------------------------------------------------------------------


def test_the_generator_agrees_with_the_recorded_one(data: Path, recorded: Any, agree: Any) -> None:
    numbers, checkpoint = recorded(NAME), read_checkpoint(data / f"{NAME}.pt")
    assert checkpoint.format == "rosinality" and list(checkpoint.networks) == ["G_ema"]
    built = build(checkpoint.networks["G_ema"], NAME)
    assert built.notes == ()
    G: Any = built.net
    ws = G.mapping(numbers["z"])
    agree(ws[:, 0], numbers["w"], "w")
    agree(G.synthesis(ws, noise_mode="const"), numbers["img_noise_buffers"], "constant noise")
    agree(crop32(G.synthesis(ws, noise_mode="none")), numbers["img_zero_noise_crop32"], "no noise")
    truncated = G.mapping(numbers["z"], truncation_psi=0.7)
    agree(truncated, numbers["latent_psi0.7"], "psi 0.7")
    agree(crop32(G.synthesis(truncated, noise_mode="const")), numbers["img_psi0.7_crop32"], "picture of psi 0.7")
    agree(crop32(G.synthesis(numbers["ws_plus"], noise_mode="const")), numbers["img_wplus_crop32"], "W+")
    mixed = torch.cat([ws[:, :4], G.mapping(numbers["z2"])[:, 4:]], dim=1)
    agree(crop32(G.synthesis(mixed, noise_mode="const")), numbers["img_mix_inject4_crop32"], "mixed styles")


def test_the_discriminator_agrees_with_the_recorded_one(data: Path, recorded: Any, agree: Any) -> None:
    numbers, checkpoint = recorded(NAME), read_checkpoint(data / f"{NAME}_d.pt")
    D = build(checkpoint.networks["D"], NAME).net
    agree(D(numbers["d_img"]), numbers["d_logits"], "logits")


@pytest.mark.slow
def test_the_full_size_generator_agrees_with_the_recorded_one(recorded: Any, by_recipe: Any, agree: Any) -> None:
    numbers = recorded("recipe_rosinality_256")
    seed = numbers.meta["seed"]
    sizes = dict(z_dim=512, w_dim=512, c_dim=0, img_resolution=256, img_channels=3)
    G: Any = Generator(**sizes, synthesis_kwargs=dict(channel_base=32768))
    tree = to_tree({"G_ema": Found(Recipe("stylegan2.Generator", G.init_kwargs), G.state_dict())})
    found = read_generator(by_recipe(tree["g_ema"], seed), torch.zeros(512))
    assert found.recipe.kwargs["synthesis_kwargs"] == dict(channel_base=32768, channel_max=512)
    G = build(found, "recipe").net
    z = torch.from_numpy(np.random.RandomState(seed).standard_normal((1, 512))).float()
    ws = G.mapping(z)
    torch.testing.assert_close(ws[:, 0], numbers["w"], rtol=0, atol=1e-4)
    img = G.synthesis(ws, noise_mode="const")
    tolerance = 1e-4 * numbers["img_stats"][1].item()
    for actual, name in (
        (crop32(img), "img_crop32_centre"),
        (img[:, :, :16, :16], "img_crop16_topleft"),
        (F.adaptive_avg_pool2d(img, 32), "img_avgpool_to_32"),
    ):
        torch.testing.assert_close(actual, numbers[name], rtol=0, atol=tolerance, msg=name)


# ---- The same file back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [f"{NAME}.pt", f"{NAME}_d.pt"])
def test_reading_and_writing_gives_the_same_file(name: str, data: Path) -> None:
    original = torch.load(data / name, weights_only=True)
    assert same(to_tree(read(original).networks), original)


def test_our_networks_come_back_to_the_last_bit() -> None:
    ours = networks()
    back = read(to_tree(ours)).networks
    assert back.keys() == ours.keys()
    for role, found in back.items():
        assert same(dict(found.tensors), dict(ours[role].tensors)), role


def test_a_written_file_loads_as_plain_tensors(data: Path, tmp_path: Path) -> None:
    middle, back = tmp_path / "G.safetensors", tmp_path / "G.pt"
    convert(data / f"{NAME}.pt", middle)
    convert(middle, back)
    assert same(torch.load(back, weights_only=True), torch.load(data / f"{NAME}.pt", weights_only=True))


def test_other_names_lead_there_and_back(data: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "G.pth", tmp_path / "G.pt"
    convert(data / f"{NAME}.pt", there)
    Generator(**read_checkpoint(there).networks["G_ema"].recipe.kwargs).load_state_dict(
        torch.load(there, weights_only=True)
    )
    convert(there, back)
    assert same(torch.load(back, weights_only=True), torch.load(data / f"{NAME}.pt", weights_only=True))


@pytest.mark.parametrize("taps", [(1, 2, 1), (1, 4, 6, 4, 1)])
def test_other_filters_are_inferred(taps: tuple[int, ...]) -> None:
    widths = dict(channel_base=128, channel_max=8, resample_filter=taps)
    given = networks(dict(synthesis_kwargs=widths), dict(block_kwargs=dict(resample_filter=taps)))
    found = read(to_tree({"G_ema": given["G_ema"]})).networks["G_ema"]
    G: Any = build(found, "file").net
    assert same(G.state_dict(), dict(given["G_ema"].tensors))


# ---- What others write ----------------------------------------------------------------------------------------------


def test_a_file_of_the_trainer_is_read(tree: dict[str, Any], tmp_path: Path) -> None:
    """With optimizers, arguments and the networks of the last step, and no average latent, which is estimated."""
    del tree["latent_avg"]
    tree |= {"g": tree["g_ema"], "g_optim": {"state": {}, "param_groups": []}, "ada_aug_p": 0.1}
    tree["args"] = argparse.Namespace(size=16, n_mlp=2, channel_multiplier=1, path="faces.lmdb")
    torch.save(tree, tmp_path / "010000.pt")
    checkpoint = read_checkpoint(tmp_path / "010000.pt")
    assert list(checkpoint.networks) == ["G_ema", "G", "D"]
    built = build(checkpoint.networks["G_ema"], "010000.pt")
    assert "mapping.w_avg" not in checkpoint.networks["G_ema"].tensors
    assert any("no average latent" in note for note in built.notes)


@pytest.mark.parametrize("wrap", [lambda g: g, lambda g: {"g": g}, lambda g: {f"module.{k}": v for k, v in g.items()}])
def test_other_wrappings_are_read(wrap: Callable[[Any], Any], tree: dict[str, Any]) -> None:
    """A state dict alone, JoJoGAN's, and one of parallel training."""
    given = wrap(tree["g_ema"])
    assert matches(given)
    (found,) = read(given).networks.values()
    assert same({**found.tensors}, {k: v for k, v in networks()["G_ema"].tensors.items() if k != "mapping.w_avg"})


def test_an_average_of_one_row_per_layer_is_read(tree: dict[str, Any]) -> None:
    row = tree["latent_avg"]
    tree["latent_avg"] = row.repeat(6, 1)
    found = read(tree).networks["G_ema"]
    assert torch.equal(found.tensors["mapping.w_avg"], row) and found.notes == ()
    tree["latent_avg"] = torch.stack([row, 3 * row])
    found = read(tree).networks["G_ema"]
    torch.testing.assert_close(found.tensors["mapping.w_avg"], 2 * row)
    assert "rows of the average latent differ" in found.notes[0]


def test_missing_noise_is_drawn_and_said(tree: dict[str, Any]) -> None:
    g = {name: tensor for name, tensor in tree["g_ema"].items() if not name.startswith("noises.")}
    found, again = read_generator(g, tree["latent_avg"]), read_generator(g, tree["latent_avg"])
    assert "fixed seed" in found.notes[0]
    noise = found.tensors["synthesis.b16.conv1.noise_const"]
    assert noise.shape == (16, 16) and torch.equal(noise, again.tensors["synthesis.b16.conv1.noise_const"])
    assert not torch.equal(noise, found.tensors["synthesis.b16.conv0.noise_const"])
    build(found, "file")


def test_what_is_not_of_this_family_does_not_match() -> None:
    for other in ({}, {"g_ema": {}}, {"conv1.conv.weight": 1}, [], None, {"state_dict": {"conv1.activate.bias": 0}}):
        assert not matches(other)


# ---- Refusals -------------------------------------------------------------------------------------------------------


def test_missing_tensors_are_named_once(tree: dict[str, Any]) -> None:
    for name in ("convs.2.conv.weight", "style.1.bias"):
        del tree["g_ema"][name]
    with pytest.raises(WeightsError, match=r"generator: tensors are missing: convs\.2\.conv\.weight, style\.1\.bias$"):
        read(tree)


def test_missing_tensors_of_the_discriminator_are_named(tree: dict[str, Any]) -> None:
    del tree["d"]["final_conv.0.weight"]
    with pytest.raises(WeightsError, match=r"discriminator: tensors are missing: final_conv\.0\.weight"):
        read(tree)


def test_unknown_tensors_are_named(tree: dict[str, Any]) -> None:
    tree["g_ema"]["iwt.ll"] = torch.zeros(2, 2)
    with pytest.raises(WeightsError, match=r"unknown tensors: iwt\.ll") as caught:
        read(tree)
    assert "variant" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("convs.1.conv.weight", torch.zeros(2, 8, 8, 3, 3), "has the wrong shape"),
        ("convs.1.conv.weight", torch.zeros(1, 8, 9, 3, 3), "wants"),
        ("conv1.noise.weight", torch.zeros(2), "has the wrong shape"),
        ("to_rgb1.bias", torch.zeros(3), "has the wrong shape"),
        ("style.1.weight", torch.zeros(8), "has the wrong shape"),
        ("input.input", "text", "is a str, not a tensor"),
        ("conv1.activate.bias", torch.full((8,), torch.nan), "not finite"),
        ("conv1.activate.bias", torch.zeros(8, dtype=torch.int64), "int64"),
        ("convs.0.conv.blur.kernel", torch.eye(4), "filters differ"),
        ("to_rgbs.999999999.bias", torch.zeros(1, 3, 1, 1), "numbers its layers up to 999999999"),
    ],
)
def test_wrong_tensors_are_refused(name: str, value: Any, message: str, tree: dict[str, Any]) -> None:
    tree["g_ema"][name] = value
    with pytest.raises(WeightsError, match=message):
        build(read(tree).networks["G_ema"], "file")


def test_filters_of_absurd_size_are_refused(tree: dict[str, Any]) -> None:
    tree["g_ema"] |= {name: torch.ones(65, 65) * (4 / 4225) for name in tree["g_ema"] if name.endswith("kernel")}
    with pytest.raises(WeightsError, match="4225 taps"):
        read(tree)


def test_an_average_of_another_width_is_refused(tree: dict[str, Any]) -> None:
    for wrong in (torch.zeros(9), torch.zeros(0, 8), torch.zeros(1, 1, 8), [0.0] * 8):
        tree["latent_avg"] = wrong
        with pytest.raises(WeightsError, match="latent_avg"):
            read(tree)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(c_dim=3), "no classes"),
        (dict(z_dim=6), "z_dim equal to w_dim"),
        (dict(img_channels=1), "three colours"),
        (dict(synthesis_kwargs=dict(architecture="orig", channel_base=128, channel_max=8)), "architecture skip"),
        (dict(synthesis_kwargs=dict(architecture="resnet", channel_base=128, channel_max=8)), "architecture skip"),
        (dict(mapping_kwargs=dict(num_layers=2, lr_multiplier=0.1)), "learning rate 0.01"),
        (dict(mapping_kwargs=dict(num_layers=2, layer_features=6)), "as wide as w"),
    ],
)
def test_a_generator_that_the_family_has_not_is_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"generator has only .*{message}") as caught:
        to_tree({"G_ema": networks(kwargs)["G_ema"]})
    assert "safetensors" in caught.value.hint


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(c_dim=3), "no classes"),
        (dict(architecture="skip"), "architecture resnet"),
        (dict(epilogue_kwargs=dict(mbstd_num_channels=2)), "one channel"),
        (dict(epilogue_kwargs=dict(mbstd_group_size=8)), "over four"),
    ],
)
def test_a_discriminator_that_the_family_has_not_is_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"discriminator has only .*{message}"):
        to_tree({"D": networks(discriminator=kwargs)["D"]})


def test_a_limit_that_is_lost_is_said(caplog: pytest.LogCaptureFixture) -> None:
    given = networks(dict(synthesis_kwargs=dict(conv_clamp=256, channel_base=128, channel_max=8)), dict(conv_clamp=255))
    to_tree(given)
    assert [text.partition(" = ")[2] for text in caplog.messages] == ["256)", "255)"]


def test_other_networks_have_no_place() -> None:
    found = networks()["G_ema"]
    with pytest.raises(InputError, match="no place for E"):
        to_tree({"E": found})
    with pytest.raises(InputError, match=r"no place for a stylegan3\.Generator"):
        to_tree({"G_ema": Found(Recipe("stylegan3.Generator", {}), found.tensors)})


def test_filters_of_another_length_come_back() -> None:
    """Only what resamples holds them; the file has them nowhere else."""
    fir = dict(resample_filter=[1, 2, 1])
    made = networks(dict(synthesis_kwargs=dict(channel_base=128, channel_max=8, **fir)), dict(block_kwargs=fir))
    again = read(to_tree(made)).networks
    for role, found in made.items():
        built = build(again[role], role).net.state_dict()
        assert all(torch.equal(built[name], tensor) for name, tensor in found.tensors.items()), role
