"""Files of the well-known PyTorch pix2pix: recorded pictures and logits, and the same file back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mien.errors import InputError, WeightsError
from mien.nets.pix2pix import PatchDiscriminator, UnetGenerator
from mien.weights.build import build
from mien.weights.checkpoint import Found, Recipe
from mien.weights.formats import convert
from mien.weights.pix2pix import DROPOUT_UNKNOWN, matches, read, to_tree

NAME = "pix2pix_unet256_ngf4_bn"


def networks(norm: str = "batch") -> dict[str, Found]:
    torch.manual_seed(0)
    G, D = UnetGenerator(ngf=2, num_downs=4, norm=norm), PatchDiscriminator(ndf=2, num_layers=2, norm=norm)
    return {
        "G": Found(Recipe("pix2pix.UnetGenerator", G.init_kwargs), G.state_dict()),
        "D": Found(Recipe("pix2pix.PatchDiscriminator", D.init_kwargs), D.state_dict()),
    }


def test_both_agree_with_the_recorded_ones(shared: Path, agree: Any) -> None:
    folder = shared / "fixtures"
    with np.load(folder / f"{NAME}.npz") as held:
        numbers = {name: torch.from_numpy(held[name]).float() for name in held.files if name != "meta_json"}
    trees = {role: torch.load(folder / f"{NAME}_net{role}.pth", weights_only=True) for role in "GD"}
    found = {role: read(tree).networks[role] for role, tree in trees.items()}
    assert found["G"].notes == (DROPOUT_UNKNOWN,)
    G, D = (build(found[role], role).net for role in "GD")
    y = G(numbers["x"])
    agree(y[:, :, 104:152, 104:152], numbers["y_eval_crop48"], "centre")
    agree(y[:, :, :16, :16], numbers["y_eval_topleft16"], "top left")
    agree(y[:, :, -16:, -16:], numbers["y_eval_bottomright16"], "bottom right")
    agree(F.adaptive_avg_pool2d(y, 32), numbers["y_eval_pool32"], "pooled")
    agree(D(torch.cat([numbers["x"], y], dim=1)), numbers["d_eval"], "logits")
    G.train()
    for module in G.modules():
        module.training = not isinstance(module, nn.Dropout)
    agree(G(numbers["x"])[:, :, 104:152, 104:152], numbers["y_trainmode_nodropout_crop48"], "statistics of the batch")
    for role, tree in trees.items():
        back = to_tree({role: found[role]})
        assert back.keys() == tree.keys() and all(torch.equal(back[name], tree[name]) for name in tree)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_networks_come_back_as_they_were(norm: str) -> None:
    ours = networks(norm)
    tree = to_tree(ours)
    assert matches(tree) and matches(tree["G"]) and matches(tree["D"])
    for role, found in read(tree).networks.items():
        assert {**ours[role].recipe.kwargs, **found.recipe.kwargs} == ours[role].recipe.kwargs
        net = build(found, "file").net
        assert all(torch.equal(value, ours[role].tensors[name]) for name, value in net.state_dict().items())


def test_a_file_is_written_and_read(tmp_path: Path) -> None:
    torch.save(to_tree(networks()), tmp_path / "latest.pth")
    convert(tmp_path / "latest.pth", tmp_path / "G.safetensors", role="G")
    convert(tmp_path / "G.safetensors", tmp_path / "G.pth", format="pix2pix")
    back = torch.load(tmp_path / "G.pth", weights_only=True)
    assert all(torch.equal(tensor, back[name]) for name, tensor in to_tree(networks())["G"].items())


def test_what_is_not_of_this_family_does_not_match() -> None:
    for other in (None, [], {}, {"G": None}, {"model.0.weight": 0}, {"model.model.0.weight": 0}):
        assert not matches(other)


def test_missing_and_unknown_tensors_are_named() -> None:
    tree = to_tree(networks())
    for name in ("model.model.1.model.2.bias", "model.model.1.model.3.model.5.weight"):
        del tree["G"][name]
    with pytest.raises(WeightsError, match=r"tensors are missing: model\.model\.1\.model\.2\.bias, model"):
        read(tree)
    with pytest.raises(WeightsError, match=r"tensors are missing: model\.model\.1\.model\.1\.weight"):
        read({"model.model.0.weight": torch.zeros(1), "model.model.3.weight": torch.zeros(1)})
    tree["D"]["model.1.weight"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"unknown tensors: model\.1\.weight"):
        read(tree["D"])


def test_wrong_shapes_are_refused() -> None:
    tree = to_tree(networks())
    tree["D"]["model.0.weight"] = torch.zeros(3)
    with pytest.raises(WeightsError, match="wrong shape"):
        read(tree["D"])


def test_other_networks_have_no_place() -> None:
    with pytest.raises(InputError, match=r"pix2pix has no stylegan2\.Generator"):
        to_tree({"G": Found(Recipe("stylegan2.Generator", {}), {})})
