"""Codes as files: the round trip renders the same picture, and anything else gives one clear error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mien.errors import InputError, UnsupportedFileError
from mien.inversion.code import Inversion, load_inversion, save_inversion
from mien.inversion.personal import Changes, quantised
from mien.nets.stylegan2 import Generator


@pytest.fixture(scope="module")
def G() -> Generator:
    torch.manual_seed(0)
    net = Generator(8, 0, 8, 16, 3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=dict(channel_max=8))
    for name, p in net.named_parameters():
        if name.endswith("noise_strength"):
            p.data.fill_(0.3)
    return net.eval().requires_grad_(False)


@pytest.fixture
def inversion(G: Generator) -> Inversion:
    noise = tuple(torch.randn(shape) for shape in G.synthesis.noise_shapes())
    return Inversion(
        ws=torch.randn(G.num_ws, G.w_dim),
        noise=noise,
        network="ab" * 32,
        method="optimize",
        config={"num_steps": 3, "terms": {"pixel": 1.0}},
        losses={"total": 0.5},
        crop={"source": "photo.jpg", "matrix": [[1.0, 0.0, 2.0], [0.0, 1.0, 3.0]]},
    )


def test_round_trip_renders_the_same_picture(G: Generator, inversion: Inversion, tmp_path: Path) -> None:
    save_inversion(inversion, tmp_path / "face.safetensors")
    again = load_inversion(tmp_path / "face.safetensors")
    assert torch.equal(again.render(G), inversion.render(G))
    for name in ("network", "method", "config", "losses", "crop"):
        assert getattr(again, name) == getattr(inversion, name)
    assert [p.name for p in tmp_path.iterdir()] == ["face.safetensors"]


def test_noise_is_part_of_the_picture(G: Generator, inversion: Inversion) -> None:
    without = Inversion(ws=inversion.ws)
    assert not torch.allclose(without.render(G), inversion.render(G))
    edited = inversion.with_ws(inversion.ws + 0.1)
    assert edited.noise is inversion.noise
    assert edited.crop == inversion.crop


def test_another_generators_code_is_refused(G: Generator) -> None:
    with pytest.raises(InputError, match=r"the code is \[2, 8\], not \[6, 8\]"):
        Inversion(ws=torch.zeros(2, 8)).render(G)


@pytest.mark.parametrize("change", ["one less", "another size", "turned"])
def test_noise_maps_of_another_generator_are_refused(G: Generator, inversion: Inversion, change: str) -> None:
    last = inversion.noise[-1]
    noise = {"one less": (), "another size": (last[:8, :8],), "turned": (last[:, :8],)}[change]
    with pytest.raises(InputError, match="noise maps do not have the sizes") as caught:
        replace(inversion, noise=inversion.noise[:-1] + noise).render(G)
    assert "--network" in caught.value.hint


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "foreign", "nan", "folder", "integers", "deep"])
def test_damaged_files_give_one_clear_error(inversion: Inversion, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "face.safetensors"
    if damage == "nan":
        save_inversion(inversion.with_ws(inversion.ws * float("nan")), path)
    elif damage == "integers":
        save_inversion(inversion.with_ws(torch.zeros_like(inversion.ws, dtype=torch.int64)), path)
    elif damage == "deep":
        save_file({"ws": inversion.ws}, path, metadata={"mien_code": "[" * 10**5})
    elif damage == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    elif damage == "folder":
        path.mkdir()
    elif damage != "missing":
        save_inversion(inversion, path)
        data = path.read_bytes()
        path.write_bytes({"empty": b"", "text": b"hello", "cut": data[: len(data) // 2]}[damage])
    with pytest.raises(UnsupportedFileError) as caught:
        load_inversion(path)
    assert str(path) in caught.value.message
    assert "mien invert" in caught.value.hint


def test_changes_come_back_exactly(G: Generator, inversion: Inversion, tmp_path: Path) -> None:
    up, down = torch.randn(8, 2).half(), torch.randn(2, 72).half()
    feature = quantised("b8", torch.randn(8, 8, 8))
    noise = tuple(n.half() for n in inversion.noise)
    person = replace(
        inversion,
        noise=noise,
        changes=Changes({"b8.conv1.weight": (up, down)}, feature),
        preview=torch.randint(0, 255, (3, 16, 16), dtype=torch.uint8),
        picture="cd" * 32,
        versions={"mien": "0"},
    )
    save_inversion(person, tmp_path / "face.mien")
    again = load_inversion(tmp_path / "face.mien")
    assert torch.equal(again.render(G), person.render(G))
    assert not torch.equal(again.render(G), inversion.render(G))
    assert again.preview is not None and person.preview is not None and torch.equal(again.preview, person.preview)
    assert (again.picture, again.versions) == (person.picture, person.versions)
    assert not person.code_alone().changes


def test_the_first_format_is_still_read(G: Generator, inversion: Inversion, tmp_path: Path) -> None:
    facts = {"format": 1, "network": "ab", "method": "optimize", "config": {}, "losses": {}, "crop": {}}
    tensors = {"ws": inversion.ws} | {f"noise{i}": n for i, n in enumerate(inversion.noise)}
    save_file(tensors, tmp_path / "old.safetensors", metadata={"mien_code": json.dumps(facts)})
    assert torch.equal(load_inversion(tmp_path / "old.safetensors").render(G), inversion.render(G))


@pytest.mark.parametrize("wrong", ["down:b8.conv1.weight", "unit:b8"])
def test_half_a_change_is_refused(inversion: Inversion, tmp_path: Path, wrong: str) -> None:
    changes = Changes({"b8.conv1.weight": (torch.ones(8, 2), torch.ones(2, 72))}, quantised("b8", torch.ones(8, 8, 8)))
    save_inversion(replace(inversion, changes=changes), tmp_path / "face.mien")
    tensors = {name: t for name, t in load_file(tmp_path / "face.mien").items() if name != wrong}
    with safe_open(tmp_path / "face.mien", framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, tmp_path / "face.mien", metadata=metadata)
    with pytest.raises(UnsupportedFileError, match="damaged or not a code"):
        load_inversion(tmp_path / "face.mien")
