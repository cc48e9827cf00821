"""Files that are often met and never read are called by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mien.errors import WeightsError
from mien.weights import foreign
from mien.weights.formats import read_checkpoint
from mien.weights.unpickle import PERSISTENT, Record

NUMBER = torch.zeros(1)


@pytest.mark.parametrize(
    ("tree", "what"),
    [
        ({"GAN": {"S.net.0.weight": NUMBER, "G.initial_block": NUMBER}, "version": "1.8.1"}, "lucidrains"),
        ({"GE.blocks.0.to_style1.weight": NUMBER}, "lucidrains"),
        ({"G_ema": Record(PERSISTENT, ("training.networks_stylegan3_resetting.SuperresGenerator",))}, "StyleGAN-XL"),
        ({"D": Record(PERSISTENT, ("pg_modules.discriminator.ProjectedDiscriminator",))}, "projected GAN"),
        ({"G_ema": Record(PERSISTENT, ("training.triplane.TriPlaneGenerator",))}, "EG3D"),
        ({"g_ema": {"generator.conv1.conv.modulation.weight": NUMBER}}, "DualStyleGAN"),
        ({"params_ema": {"stylegan_decoder.constant_input.weight": NUMBER}}, "GFPGAN"),
        ({"g_ema": {"to_rgbs.0.iwt.ll": NUMBER}}, "SWAGAN"),
        ({"state_dict": {"model.diffusion_model.out.0.weight": NUMBER}}, "diffusion"),
    ],
)
def test_each_is_named(tree: Any, what: str) -> None:
    assert foreign.matches(tree)
    with pytest.raises(WeightsError, match=f"it is .*{what}.*; mien does not read it") as caught:
        foreign.read(tree)
    assert "own code" in caught.value.hint


@pytest.mark.parametrize("name", ["rosinality_r64_w64_m8", "rosinality_r64_w64_m8_d", "sg2ada_D_resnet_c0"])
def test_ours_are_not(name: str, data: Path) -> None:
    assert not foreign.matches(torch.load(data / f"{name}.pt", weights_only=True))


def test_other_things_are_not() -> None:
    for tree in (None, [], {}, 3, {"a": {"b": {"c": {"S.net.0": 1}}}}, Record("x"), {1: {2: 3}}):
        assert not foreign.matches(tree)


def test_the_error_names_the_file(tmp_path: Path) -> None:
    torch.save({"GAN": {"G.initial_block": NUMBER}, "version": "1.5"}, tmp_path / "model_60.pt")
    with pytest.raises(WeightsError, match=r"model_60\.pt: it is a network of lucidrains"):
        read_checkpoint(tmp_path / "model_60.pt")
