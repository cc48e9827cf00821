"""Files of pSp, e4e and ReStyle, written here from their tables of names."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from mien.errors import WeightsError
from mien.nets.psp import PspEncoder
from mien.weights.build import build
from mien.weights.formats import read_checkpoint
from mien.weights.wrapped import matches, read

SMALL: dict[str, Any] = dict(w_dim=5, in_resolution=32, channels=(4, 6, 8, 10), units=(1, 1, 2, 1))


def encoder(**kwargs: Any) -> PspEncoder:
    torch.manual_seed(0)
    net = PspEncoder(**{**dict(num_ws=4), **SMALL, **kwargs})
    net.latent_avg.normal_()
    return net.eval().requires_grad_(False)


def state(net: PspEncoder) -> dict[str, Any]:
    """The state dict as the official code has it."""
    return {name: tensor for name, tensor in net.state_dict().items() if name != "latent_avg"}


def wrap(net: PspEncoder, decoder: dict[str, Any] | None = None, **opts: Any) -> dict[str, Any]:
    parts = {f"encoder.{name}": tensor for name, tensor in state(net).items()}
    parts |= {f"decoder.{name}": tensor for name, tensor in (decoder or {}).items()}
    return {"state_dict": parts, "latent_avg": net.latent_avg, "opts": opts}


@pytest.fixture
def decoder(data: Path) -> dict[str, Any]:
    return torch.load(data / "rosinality_r64_w64_m8.pt", weights_only=True)["g_ema"]


@pytest.mark.parametrize(
    ("kwargs", "encoder_type"),
    [
        (dict(kind="e4e"), "Encoder4Editing"),
        (dict(kind="psp"), "GradualStyleEncoder"),
        (dict(kind="psp", in_channels=1, use_se=False), "GradualStyleEncoder"),
        (dict(kind="e4e", in_channels=6, use_pyramid=False), "ProgressiveBackboneEncoder"),
        (dict(kind="psp", in_channels=6, use_pyramid=False), "BackboneEncoder"),
    ],
)
def test_encoders_come_back_as_they_were(kwargs: dict[str, Any], encoder_type: str) -> None:
    net = encoder(**kwargs)
    checkpoint = read(wrap(net, encoder_type=encoder_type))
    assert list(checkpoint.networks) == ["E"]
    built = build(checkpoint.networks["E"], "file")
    assert built.notes == () and isinstance(built.net, PspEncoder)
    assert built.net.init_kwargs == net.init_kwargs
    img = torch.rand(1, net.in_channels, 32, 32)
    assert torch.equal(built.net(img), net(img))


def test_generator_and_encoder_are_read_from_a_file(decoder: dict[str, Any], tmp_path: Path) -> None:
    net = encoder(w_dim=64, num_ws=10)
    tree = wrap(net, decoder)
    tree["latent_avg"] = torch.randn(1, 64).repeat(10, 1)
    tree["opts"] = argparse.Namespace(encoder_type="Encoder4Editing", start_from_latent_avg=True, stylegan_size=64)
    torch.save(tree, tmp_path / "e4e.pt")
    checkpoint = read_checkpoint(tmp_path / "e4e.pt")
    assert list(checkpoint.networks) == ["G_ema", "E"]
    G: Any = build(checkpoint.networks["G_ema"], "e4e.pt").net
    E: Any = build(checkpoint.networks["E"], "e4e.pt").net
    assert torch.equal(G.w_avg, tree["latent_avg"][0]) and torch.equal(E.latent_avg, tree["latent_avg"])
    with torch.inference_mode():
        img = G.synthesis(E(torch.zeros(1, 3, 64, 64)), noise_mode="const")
    assert img.shape == (1, 3, 64, 64)


def test_one_average_serves_all_rows() -> None:
    tree = wrap(encoder(), encoder_type="Encoder4Editing")
    tree["latent_avg"] = torch.arange(5.0)
    found = read(tree).networks["E"]
    assert torch.equal(found.tensors["latent_avg"], torch.arange(5.0).repeat(4, 1))


def test_a_longer_average_is_cut() -> None:
    """A file for a smaller generator may keep the 18 rows of the largest."""
    tree = wrap(encoder(), encoder_type="Encoder4Editing")
    tree["latent_avg"] = torch.randn(18, 5)
    assert torch.equal(read(tree).networks["E"].tensors["latent_avg"], tree["latent_avg"][:4])


@pytest.mark.parametrize("change", [{"latent_avg": None}, {"opts": {"start_from_latent_avg": False}}])
def test_codes_without_an_average_are_relative(change: dict[str, Any]) -> None:
    found = read({**wrap(encoder()), **change}).networks["E"]
    assert not found.tensors["latent_avg"].any()
    assert any("codes are relative" in note for note in found.notes)


def test_an_encoder_alone_is_taken_as_e4e() -> None:
    tree = state(encoder())
    assert matches(tree)
    found = read(tree).networks["E"]
    assert found.recipe.kwargs["kind"] == "e4e" and "does not say which encoder" in found.notes[0]


def test_a_generator_alone_is_read(decoder: dict[str, Any]) -> None:
    tree = {"state_dict": {f"decoder.{name}": tensor for name, tensor in decoder.items()}}
    assert matches(tree) and list(read(tree).networks) == ["G_ema"]


def test_what_else_is_there_is_left_out_and_said(decoder: dict[str, Any]) -> None:
    """HyperStyle's files, for one, hold networks that change weights."""
    tree = {"state_dict": {f"decoder.{name}": tensor for name, tensor in decoder.items()}}
    tree["state_dict"]["hypernet.conv1.weight"] = torch.zeros(1)
    assert read(tree).networks["G_ema"].notes == ("left out of the file: hypernet",)


def test_what_is_not_of_this_family_does_not_match() -> None:
    for other in (None, {}, {"state_dict": None}, {"state_dict": {"encoder.weight": 1, 3: 4}}, []):
        assert not matches(other)


def test_a_recogniser_with_the_same_backbone_does_not_match() -> None:
    assert not matches({"input_layer.0.weight": 0, "body.0.res_layer.1.weight": 0, "output_layer.0.weight": 0})


# ---- Refusals -------------------------------------------------------------------------------------------------------


def test_an_encoder_of_another_kind_is_refused(decoder: dict[str, Any]) -> None:
    tree = {"state_dict": {f"decoder.{name}": tensor for name, tensor in decoder.items()}}
    tree["state_dict"] |= {"encoder.conv1.weight": torch.zeros(64, 6, 7, 7), "encoder.bn1.bias": torch.zeros(64)}
    with pytest.raises(WeightsError, match=r"encoder is of an unknown kind, with bn1\.bias, conv1\.weight") as caught:
        read(tree)
    assert "ReStyle" in caught.value.hint
    with pytest.raises(WeightsError, match="encoder is a 'BackboneEncoderUsingLastLayerIntoW'"):
        read(wrap(encoder(), encoder_type="BackboneEncoderUsingLastLayerIntoW"))


def test_missing_tensors_are_named() -> None:
    tree = wrap(encoder(), encoder_type="Encoder4Editing")
    del tree["state_dict"]["encoder.styles.2.convs.0.bias"], tree["state_dict"]["encoder.latlayer2.bias"]
    with pytest.raises(WeightsError, match=r"tensors are missing: latlayer2\.bias, styles\.2\.convs\.0\.bias"):
        build(read(tree).networks["E"], "file")
    del tree["state_dict"]["encoder.styles.0.linear.weight"]
    with pytest.raises(WeightsError, match=r"encoder: tensors are missing: styles\.0\.linear\.weight"):
        read(tree)


def test_wrong_shapes_are_refused() -> None:
    for name in ("styles.0.linear.weight", "input_layer.0.weight", "body.1.res_layer.3.weight"):
        tree = wrap(encoder(), encoder_type="Encoder4Editing")
        tree["state_dict"][f"encoder.{name}"] = torch.zeros(3)
        with pytest.raises(WeightsError, match="wrong shape"):
            read(tree)
    tree = wrap(encoder(), encoder_type="Encoder4Editing")
    tree["state_dict"]["encoder.body.1.res_layer.3.weight"] = torch.zeros(4, 4, 3, 3)
    with pytest.raises(WeightsError, match="has 3 stages, not 4"):
        read(tree)


@pytest.mark.parametrize("average", [torch.zeros(6), torch.zeros(3, 5), torch.zeros(1, 4, 5), torch.zeros(0, 5), "x"])
def test_an_average_of_another_shape_is_refused(average: Any) -> None:
    tree = wrap(encoder(), encoder_type="Encoder4Editing")
    tree["latent_avg"] = average
    with pytest.raises(WeightsError, match="latent_avg"):
        read(tree)
