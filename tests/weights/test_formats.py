"""Any format in, any format out: what is read is what is written, and what a file lacks is made and said."""

from __future__ import annotations

import json
import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mien.errors import InputError, WeightsError
from mien.nets.discriminator import Discriminator
from mien.nets.stylegan2 import Generator
from mien.weights import formats
from mien.weights.build import build
from mien.weights.checkpoint import Checkpoint, Found, Recipe
from mien.weights.formats import READERS, WRITERS, choose, convert, describe, read_checkpoint, verify
from mien.weights.load import load_generator, load_net, read_recipe, save_net


def tiny(c_dim: int = 0) -> Generator:
    torch.manual_seed(1)
    G = Generator(8, c_dim, 8, 16, 3, mapping_kwargs={"num_layers": 2}, channel_base=64, channel_max=8)
    G.mapping.w_avg.copy_(torch.randn(8))
    for name, tensor in G.state_dict().items():
        if name.endswith((".bias", ".noise_strength")):
            tensor.add_(torch.randn_like(tensor))
    return G.requires_grad_(False)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    path = tmp_path / "ours.safetensors"
    save_net(tiny(), path, provenance={"licence": "CC0-1.0"})
    return path


def state_of(path: Path, role: str = "G_ema") -> dict[str, Tensor]:
    return load_net(path, role=role).state_dict()


def assert_same(state: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert state.keys() == other.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, other[name]), name


# ---- The tables -----------------------------------------------------------------------------------------------------


def test_every_reader_and_writer_is_there() -> None:
    for name in READERS:
        reader: Any = formats.importlib.import_module(f"mien.weights.{name}")
        for tree in (
            {},
            [],
            None,
            3,
            "text",
            torch.zeros(2),
            {"G_ema": None},
            {"g_ema": {}},
            {1: 2},
            [{}],
            ({}, {}, {}),
        ):
            assert reader.matches(tree) is False, (name, tree)
    for name in WRITERS.values():
        assert callable(formats.importlib.import_module(f"mien.weights.{name}").to_tree)


def test_a_file_without_a_network_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.pt"
    torch.save({"step": 3, "lr": 0.1}, path)
    with pytest.raises(
        WeightsError, match=r"optimizer\.pt: no network .* a table of 2 entries \('step', 'lr'\)"
    ) as info:
        load_generator(path)
    assert "StyleGAN 1, 2 and 3" in info.value.hint
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="a list of 2"):
        load_generator(path)


def test_a_reader_that_stumbles_is_a_damaged_file(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stumbling: Any = types.ModuleType("mien.weights.stumbling")
    stumbling.matches = lambda tree: tree["absent"]
    monkeypatch.setitem(sys.modules, stumbling.__name__, stumbling)
    monkeypatch.setattr(formats, "READERS", ("stumbling",))
    torch.save({"a": 1}, ours.with_name("a.pt"))
    with pytest.raises(WeightsError, match=r"a\.pt: damaged \(KeyError\)"):
        read_checkpoint(ours.with_name("a.pt"))


def test_safetensors_of_others_are_read_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tiny().state_dict().items()}, path)
    assert_same(state_of(path), tiny().state_dict())
    assert read_recipe(path).kwargs["img_resolution"] == 16


def test_the_network_that_is_wanted_is_chosen() -> None:
    G, D = Found(Recipe("stylegan2.Generator", {}), {}), Found(Recipe("discriminator.Discriminator", {}), {})
    plain = Found(Recipe("stylegan2.Generator", {}), {})
    checkpoint = Checkpoint("a", {"D": D, "G": plain, "G_ema": G})
    assert choose(checkpoint, "f") is G and choose(checkpoint, "f", role="G") is plain
    assert choose(checkpoint, "f", Discriminator) is D and choose(checkpoint, "f", Generator, "G") is plain
    with pytest.raises(WeightsError, match=r"f: it holds D, a discriminator\.Discriminator, G, .* not E, a Module"):
        choose(checkpoint, "f", role="E")
    with pytest.raises(WeightsError, match="not D, a Generator"):
        choose(checkpoint, "f", Generator, "D")


# ---- What a file lacks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c_dim", [0, 3])
def test_a_missing_average_is_estimated_and_said(tmp_path: Path, c_dim: int, caplog: pytest.LogCaptureFixture) -> None:
    G = tiny(c_dim)
    path = tmp_path / "g.pth"
    torch.save({name: t for name, t in G.state_dict().items() if name != "mapping.w_avg"}, path)
    with caplog.at_level(logging.WARNING):
        first, second = load_generator(path), load_generator(path)
    assert "g.pth: the file has no average latent; it is estimated" in caplog.text
    assert torch.equal(first.w_avg, second.w_avg)
    torch.manual_seed(5)
    z, c = torch.randn(20_000, 8), torch.eye(3)[torch.randint(3, [20_000])] if c_dim else None
    w = G.mapping(z, c)[:, 0]
    error = (first.w_avg - w.mean(dim=0)).abs()
    assert (error < 5 * w.std(dim=0) / 10_000**0.5).all()
    converted = convert(path, tmp_path / "g.safetensors")
    assert any("estimated" in note for note in read_recipe(converted).provenance["notes"])
    assert torch.equal(load_generator(converted).w_avg, first.w_avg)


# ---- Writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["there.pt", "there.pth"])
def test_there_and_back_is_the_same_bits(ours: Path, name: str) -> None:
    there = convert(ours, ours.with_name(name))
    back = convert(there, ours.with_name("back.safetensors"))
    assert_same(state_of(back), tiny().state_dict())
    assert load_generator(back).init_kwargs == load_generator(there).init_kwargs
    again = convert(back, ours.with_name(f"again-{name}"))
    first, second = torch.load(there, weights_only=True), torch.load(again, weights_only=True)
    assert first.keys() == second.keys()


def test_every_small_file_becomes_the_same_of_ours(tiny_paths: dict[str, Path], tmp_path: Path) -> None:
    states = []
    for name, path in tiny_paths.items():
        target = convert(path, tmp_path / f"{path.stem}-converted.safetensors")
        states.append(state_of(target))
        provenance = read_recipe(target).provenance
        assert provenance == {} if name.startswith("ours") else provenance["source"] == name
    for state in states:
        assert_same(state, states[0])


def test_the_licence_stays_on_the_way(ours: Path) -> None:
    assert read_recipe(convert(ours, ours.with_name("b.safetensors"))).provenance == {"licence": "CC0-1.0"}


def test_what_cannot_be_written_leaves_the_target(ours: Path) -> None:
    target = ours.with_name("kept.onnx")
    target.write_bytes(b"kept")
    with pytest.raises(InputError, match=r"kept\.onnx: no format of weights that mien writes") as info:
        convert(ours, target)
    assert ".safetensors (safetensors)" in info.value.hint
    with pytest.raises(InputError, match="no format"):
        convert(ours, target, format="pickle")
    target = ours.with_name("kept.pt")
    target.write_bytes(b"kept")
    with pytest.raises(WeightsError, match="not E, a Module"):
        convert(ours, target, role="E")
    assert target.read_bytes() == b"kept"


# ---- Looking --------------------------------------------------------------------------------------------------------


def test_a_file_is_described(ours: Path) -> None:
    facts = json.loads(json.dumps(describe(ours)))
    assert facts["format"] == "mien" and facts["file"] == "ours.safetensors"
    (G,) = facts["networks"].values()
    sizes = {name: G[name] for name in ("z_dim", "w_dim", "c_dim", "num_ws", "img_resolution", "img_channels")}
    assert sizes == dict(z_dim=8, w_dim=8, c_dim=0, num_ws=6, img_resolution=16, img_channels=3)
    assert G["parameters"] == sum(p.numel() for p in tiny().parameters())
    assert G["provenance"] == {"licence": "CC0-1.0"}


def test_verify_lets_every_generator_make_a_picture(ours: Path) -> None:
    (facts,) = verify(ours).values()
    assert facts["image_std"] > 0
    G = tiny()
    for name, tensor in G.state_dict().items():
        if ".torgb." in name:
            tensor.zero_()
    save_net(G, ours)
    with pytest.raises(WeightsError, match="G_ema makes pictures without anything on them"):
        verify(ours)


def test_a_tensor_that_learns_is_taken_as_numbers() -> None:
    G = tiny().requires_grad_(True)
    state = dict(G.named_parameters()) | dict(G.named_buffers())
    net = build(Found(Recipe("stylegan2.Generator", G.init_kwargs), state), "f").net
    assert not any(p.requires_grad for p in net.parameters())
