"""Differences to a base: what comes back, how much smaller it is, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mien.errors import InputError, MissingWeightsError, WeightsError
from mien.latents import fitted, sample_ws, synthesize
from mien.nets import stylegan2, stylegan3
from mien.training.grow import grow_generator
from mien.weights.delta import CODINGS, save_difference, tensors_digest
from mien.weights.formats import describe, verify
from mien.weights.load import load_generator, read_recipe, save_generator


def generator(seed: int = 0, channel_max: int = 8) -> Any:
    torch.manual_seed(seed)
    kwargs = dict(channel_base=128, channel_max=channel_max)
    return stylegan2.Generator(8, 0, 8, 16, 3, dict(num_layers=2), kwargs).eval().requires_grad_(False)


def moved(G: Any, by: float = 0.05) -> Any:
    """A generator whose synthesis has learnt something, and whose mapping has not."""
    other = copy.deepcopy(G)
    torch.manual_seed(1)
    for weight in other.synthesis.parameters():
        weight.data += by * torch.randn_like(weight)
    return other


@pytest.fixture
def base(tmp_path: Path) -> Any:
    save_generator(generator(), tmp_path / "faces.safetensors", use_half=True)
    return load_generator(tmp_path / "faces.safetensors")


@pytest.mark.parametrize("coding", CODINGS)
def test_a_difference_reads_as_the_whole_generator(coding: str, base: Any, tmp_path: Path) -> None:
    other, path = moved(base), tmp_path / "drawn.safetensors"
    save_difference(other, path, base=base, base_name="faces", coding=coding, provenance={"kimg": 3})
    found = load_generator(path)
    for (name, now), before in zip(other.state_dict().items(), base.state_dict().values(), strict=True):
        held = found.state_dict()[name]
        if coding == "exact" or torch.equal(now, before):
            assert torch.equal(held, now), name
        elif coding == "fp16" or now.ndim < 2:
            assert torch.equal(held, before + (now - before).half().float()), name
        else:
            step = (now - before).flatten(1).abs().amax(1) / 127
            assert bool(((held - now).flatten(1).abs().amax(1) <= 0.51 * step).all()), name
    assert read_recipe(path).provenance == {"kimg": 3}
    assert describe(path)["format"] == "mien, a difference" and verify(path)


@pytest.mark.parametrize("coding", CODINGS)
def test_what_has_grown_is_held_beside_the_difference(coding: str, base: Any, tmp_path: Path) -> None:
    grown = moved(grow_generator(base, 32)).requires_grad_(False)
    save_difference(grown, tmp_path / "drawn.safetensors", base=base, base_name="faces", coding=coding)
    found = load_generator(tmp_path / "drawn.safetensors")
    assert (found.img_resolution, found.num_ws) == (32, base.num_ws + 2)
    ws = sample_ws(base, [1])
    assert torch.equal(ws[:, 0], sample_ws(found, [1])[:, 0])
    wanted = synthesize(grown, fitted(ws, grown.num_ws))
    apart = (synthesize(found, fitted(ws, found.num_ws)) - wanted).square().mean().sqrt() / wanted.std()
    assert apart < {"exact": 1e-6, "fp16": 1e-3, "int8": 1e-2}[coding]
    with pytest.raises(InputError, match="built differently"):
        save_difference(base, tmp_path / "small", base=grown, base_name="drawn")


def test_what_did_not_change_is_not_stored(base: Any, tmp_path: Path) -> None:
    path = tmp_path / "drawn.safetensors"
    save_difference(moved(base), path, base=base, base_name="faces", coding="fp16")
    stored = load_file(path)
    assert not any(name.startswith("mapping.") or name.endswith("noise_const") for name in stored)
    save_difference(base, path, base=base, base_name="faces")
    assert all(map(torch.equal, load_generator(path).state_dict().values(), base.state_dict().values()))


def test_eight_bits_are_half_of_sixteen(base: Any, tmp_path: Path) -> None:
    large = generator(channel_max=64)
    save_generator(large, tmp_path / "large.safetensors", use_half=True)
    large = load_generator(tmp_path / "large.safetensors")
    sizes = {}
    for coding in CODINGS:
        path = tmp_path / f"{coding}.safetensors"
        save_difference(moved(large), path, base=large, base_name="large", coding=coding)
        sizes[coding] = sum(t.nbytes for t in load_file(path).values())
    assert sizes["int8"] < 0.56 * sizes["fp16"] < 0.29 * sizes["exact"]


def test_stylegan3_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = dict(num_layers=4, channel_base=128, channel_max=8)
    G = stylegan3.Generator(8, 0, 8, 16, 3, dict(num_layers=1), sizes)
    save_generator(G, tmp_path / "faces.safetensors")
    other = moved(load_generator(tmp_path / "faces.safetensors"))
    other.synthesis.layers()[0].magnitude_ema += 0.5  # a buffer that training moves
    save_difference(
        other, tmp_path / "d.safetensors", base=load_generator(tmp_path / "faces.safetensors"), base_name="faces"
    )
    found: Any = load_generator(tmp_path / "d.safetensors")
    assert float(found.synthesis.layers()[0].magnitude_ema) == pytest.approx(1.5)


def test_another_base_or_none_is_refused(base: Any, tmp_path: Path) -> None:
    path = tmp_path / "drawn.safetensors"
    save_difference(moved(base), path, base=base, base_name="faces")
    save_generator(generator(seed=5), tmp_path / "faces.safetensors", use_half=True)
    with pytest.raises(WeightsError, match="a difference to other weights") as refused:
        load_generator(path)
    assert tensors_digest(base.state_dict())[:12] in str(refused.value.hint)
    (tmp_path / "faces.safetensors").unlink()
    with pytest.raises(MissingWeightsError, match=r"is a difference to faces, which is not here") as missing:
        load_generator(path)
    assert "faces.safetensors" in str(missing.value.hint)
    assert read_recipe(path).base is not None  # its header needs no base
    path.rename(tmp_path / "faces.safetensors")
    with pytest.raises(MissingWeightsError):  # it is not its own base
        load_generator(tmp_path / "faces.safetensors")


def test_a_difference_to_a_difference_is_refused(base: Any, tmp_path: Path) -> None:
    save_difference(moved(base), tmp_path / "drawn.safetensors", base=base, base_name="faces")
    drawn = load_generator(tmp_path / "drawn.safetensors")
    save_difference(moved(drawn), tmp_path / "twice.safetensors", base=drawn, base_name="drawn")
    with pytest.raises(WeightsError, match="is itself no whole network"):
        load_generator(tmp_path / "twice.safetensors")


def test_generators_that_are_built_differently_have_no_difference(base: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="built differently from faces"):
        save_difference(generator(channel_max=4), tmp_path / "d", base=base, base_name="faces")
    with pytest.raises(InputError, match="no coding named 'zip'"):
        save_difference(base, tmp_path / "d", base=base, base_name="faces", coding="zip")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, r: t.update(stranger=torch.zeros(2)), "do not belong to its network: stranger"),
        (lambda t, r: t.update({"synthesis.b4.const": torch.zeros(2)}), "no tensor of its base"),
        (lambda t, r: [t.pop(k) for k in list(t) if k.endswith(".scale")], "has no scales"),
        (lambda t, r: r.update(base={"name": "../faces", "digest": "0"}), "what it is a difference to"),
        (lambda t, r: r.pop("base"), "is and is not a difference"),
    ],
)
def test_damaged_differences_are_refused(change: Any, message: str, base: Any, tmp_path: Path) -> None:
    path = tmp_path / "drawn.safetensors"
    save_difference(moved(base), path, base=base, base_name="faces")
    tensors = load_file(path)
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    recipe = json.loads(header["__metadata__"]["mien_difference"])
    change(tensors, recipe)
    save_file(tensors, path, metadata={"mien_difference": json.dumps(recipe)})
    with pytest.raises(WeightsError, match=message):
        load_generator(path)
