"""Networks survive the way through a file; anything else than such a file is one clear error, and a cheap one."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mien.errors import InputError, MienError, WeightsError
from mien.nets.discriminator import Discriminator
from mien.nets.encoder import Encoder
from mien.nets.stylegan2 import Generator
from mien.weights import load
from mien.weights.build import net_class
from mien.weights.load import (
    NETS,
    bundled_names,
    find_weights,
    load_generator,
    load_net,
    read_recipe,
    save_generator,
    save_net,
    weights_digest,
)


def tiny_generator(**kwargs: Any) -> Generator:
    torch.manual_seed(0)
    wanted: dict[str, Any] = dict(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3)
    return Generator(**{**wanted, "mapping_kwargs": {"num_layers": 2}, "channel_base": 64, "channel_max": 8, **kwargs})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "g.safetensors"
    save_generator(tiny_generator(), path, provenance={"kimg": 3, "licence": "CC0"})
    return path


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the recipe of a file and keep its tensors."""
    with safe_open(path, framework="pt") as file:
        recipe = json.loads(file.metadata()["mien"])
    change(recipe)
    save_file(load_file(path), path, metadata={"mien": json.dumps(recipe)})


# ---- The way through a file -----------------------------------------------------------------------------------------


def test_a_generator_comes_back_as_it_was(saved: Path) -> None:
    G, back = tiny_generator(), load_generator(saved)
    z = torch.randn(2, 8)
    assert torch.equal(G(z, noise_mode="const"), back(z, noise_mode="const"))
    assert back.init_kwargs == G.init_kwargs
    assert isinstance(back, Generator) and not back.training
    assert not any(p.requires_grad for p in back.parameters())


@pytest.mark.parametrize(
    "net",
    [
        Discriminator(2, 16, 3, channel_base=64, channel_max=8, mapping_kwargs={"num_layers": 1}),
        tiny_generator(c_dim=3, synthesis_kwargs={"architecture": "resnet", "resample_filter": (1, 2, 1)}),
        Encoder(num_ws=6, w_dim=8, img_resolution=32),
    ],
    ids=["labels", "resnet", "encoder"],
)
def test_every_kind_of_network_comes_back(net: torch.nn.Module, tmp_path: Path) -> None:
    save_net(net, tmp_path / "net.safetensors")
    back = load_net(tmp_path / "net.safetensors", type(net))
    assert type(back) is type(net)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name


def test_every_name_of_the_table_is_a_network_that_keeps_its_arguments() -> None:
    for name in NETS:
        assert issubclass(net_class(name), torch.nn.Module), name


def test_the_recipe_tells_where_weights_come_from(saved: Path) -> None:
    recipe = read_recipe(saved)
    assert recipe.net == "stylegan2.Generator"
    assert recipe.kwargs["img_resolution"] == 16
    assert recipe.provenance == {"kimg": 3, "licence": "CC0"}


def test_half_precision_halves_the_file_and_loads_as_float32(saved: Path) -> None:
    half = saved.with_name("half.safetensors")
    G = tiny_generator()
    save_generator(G, half, use_half=True)
    back = load_generator(half)
    assert isinstance(back, Generator)
    for name, tensor in back.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, G.state_dict()[name], rtol=1e-3, atol=1e-7)
    num_values = sum(t.numel() for t in G.state_dict().values())
    assert saved.stat().st_size - half.stat().st_size == pytest.approx(2 * num_values, abs=256)


def test_loading_leaves_the_random_numbers_alone(saved: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_generator(saved)
    assert torch.equal(torch.rand(3), expected)


def test_the_digest_is_the_sha256_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "abc.safetensors"
    path.write_bytes(b"abc")
    assert weights_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# ---- Names ----------------------------------------------------------------------------------------------------------


def test_a_bundled_name_is_found_in_the_package(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_bundle", lambda: tmp_path)
    assert bundled_names() == ["g"]
    assert find_weights("g") == saved
    assert load_generator("g").img_resolution == 16
    with pytest.raises(WeightsError, match="no weights at nobody") as info:
        load_generator("nobody")
    assert "bundled name: g" in info.value.hint


def test_what_is_bundled_loads() -> None:
    for name in bundled_names():
        assert load_net(name).state_dict()


# ---- Writing --------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def write_half(path: Path, data: bytes) -> int:
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(MienError, match="No space left"):
        save_generator(tiny_generator(w_dim=4), saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_values_beyond_half_precision_are_said(tmp_path: Path, value: float) -> None:
    G = tiny_generator()
    G.w_avg.fill_(value)
    with pytest.raises(InputError, match=r"mapping\.w_avg has values beyond half precision"):
        save_generator(G, tmp_path / "g.safetensors", use_half=True)
    assert not list(tmp_path.iterdir())


# ---- Files that are not ours ----------------------------------------------------------------------------------------


def header(text: bytes, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        b"\x00" * 64,
        b"<html>404 not found</html>" * 9,
        b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.",
        header(b"{}", 2**63),
        header(b"{" + b" " * 100, 90),
        header(b"[" * 4000),
        header(b'{"a": ' * 4000),
        header(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}') + b"\0" * 4,
        header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}') + b"\0" * 4,
        header(b'{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,4]}}') + b"\0" * 4,
        header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}') + b"\0" * 4,
        header(b'{"a":{"dtype":"X7","shape":[1],"data_offsets":[0,4]}}') + b"\0" * 4,
        header(b" " * (5 << 20)),
        header(b"{}"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    for read in (load_net, load_generator, read_recipe):
        with pytest.raises(WeightsError, match=r"foreign\.safetensors") as info:
            read(path)
        assert info.value.hint and info.value.exit_code == 1


@pytest.mark.parametrize("share", [0.0001, 0.05, 0.5, 0.9999])
def test_a_file_cut_short_is_refused(saved: Path, share: float) -> None:
    saved.write_bytes(saved.read_bytes()[: int(saved.stat().st_size * share)])
    with pytest.raises(WeightsError, match=r"g\.safetensors: (damaged|not a safetensors file, or cut short)"):
        load_generator(saved)


def test_a_folder_and_a_missing_file_are_said(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent.safetensors"):
        with pytest.raises(WeightsError, match=f"no weights at {place}"):
            load_net(place)


def test_tensors_of_another_project_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="no network that mien knows: the file holds a table of 1 entries"):
        load_net(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("format"), "no format"),
        (lambda r: r.update(format=2), "format 2, not 1"),
        (lambda r: r.update(net="os.system"), "unknown network 'os.system'"),
        (lambda r: r.update(net=["stylegan2.Generator"]), "unknown network"),
        (lambda r: r.pop("kwargs"), "no arguments"),
        (lambda r: r.update(kwargs=[1]), "no arguments"),
        (lambda r: r["kwargs"].pop("z_dim"), "does not make a stylegan2.Generator: .*z_dim"),
        (lambda r: r["kwargs"].update(evil=1), "does not make a stylegan2.Generator: .*evil"),
        (lambda r: r["kwargs"].update(z_dim="eight"), "does not make"),
        (lambda r: r["kwargs"].update(img_resolution=17), "must be a power of two from 4 up, got 17"),
        (lambda r: r["kwargs"].update(img_resolution=-16), "must be a power of two from 4 up, got -16"),
        (lambda r: r["kwargs"].update(img_resolution=2**30), "img_resolution = 1073741824 is out of range"),
        (lambda r: r["kwargs"].update(z_dim=10**400), "z_dim = 1000.* is out of range"),
        (lambda r: r["kwargs"].update(z_dim=float("nan")), "not JSON"),
        (lambda r: r["kwargs"].update(img_resolution=2**14), "img_resolution = 16384 is out of range"),
        (lambda r: r["kwargs"].update(img_resolution=32), "tensors are missing: synthesis.b32"),
        (lambda r: r["kwargs"].update(img_resolution=8), "do not belong to its network: synthesis.b16"),
        (lambda r: r["kwargs"]["mapping_kwargs"].update(num_layers=10**6), "num_layers = 1000000 is out of range"),
        (lambda r: r["kwargs"]["mapping_kwargs"].update(num_layers=1000), "many more tensors than the file"),
        (lambda r: r["kwargs"].update(z_dim=2**20), "z_dim = 1048576 is out of range"),
        (lambda r: r["kwargs"].update(w_dim=2**16, z_dim=2**16), "its network wants"),
        (lambda r: r["kwargs"].update(z_dim=9), r"mapping.fc0.weight is \[8, 8\], its network wants \[8, 9\]"),
        (lambda r: r["kwargs"]["synthesis_kwargs"].update(activation="no"), "does not make"),
        (lambda r: r["kwargs"]["synthesis_kwargs"].update(resample_filter=[]), "does not make"),
    ],
)
def test_a_wrong_recipe_is_refused(saved: Path, change: Callable[[Any], None], message: str) -> None:
    rewrite(saved, change)
    with pytest.raises(WeightsError, match=message) as info:
        load_generator(saved)
    assert len(info.value.message) <= 300 and info.value.hint


def test_recipes_of_huge_networks_cost_nothing(saved: Path, tmp_path: Path) -> None:
    """In a process of its own: the most memory that this one ever held says nothing about a single call."""
    huge: list[Callable[[dict[str, Any]], None]] = [
        lambda r: r["kwargs"].update(w_dim=2**16, z_dim=2**16),
        lambda r: r["kwargs"].update(img_resolution=2**13),
        lambda r: r["kwargs"]["mapping_kwargs"].update(num_layers=1000),
    ]
    content, paths = saved.read_bytes(), []
    for i, change in enumerate(huge):
        rewrite(saved, change)
        paths.append(str(saved.rename(tmp_path / f"huge{i}.safetensors")))
        saved.write_bytes(content)
    code = """
import resource, sys
from mien.errors import WeightsError
from mien.weights.load import load_generator
load_generator(sys.argv[1])
before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        load_generator(path)
    except WeightsError:
        continue
    raise SystemExit(f"{path} was taken")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib)
"""
    command = [sys.executable, "-c", code, str(saved), *paths]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 100 * 1024


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("mapping.fc0.bias"), r"tensors are missing: mapping\.fc0\.bias"),
        (lambda t: t.update({f"x{i}": torch.zeros(1) for i in range(5)}), "do not belong .*: x0, x1, x2 and 2 more"),
        (lambda t: t.update({"mapping.w_avg": torch.zeros(9)}), r"w_avg is \[9\], its network wants \[8\]"),
        (lambda t: t.update({"mapping.w_avg": torch.zeros(8, dtype=torch.int8)}), "w_avg is torch.int8"),
        (lambda t: t.update({"mapping.w_avg": torch.zeros(8, dtype=torch.complex64)}), "w_avg is torch.complex64"),
        (lambda t: t["mapping.w_avg"].fill_(float("inf")), "w_avg has values that are not finite"),
        (lambda t: t["mapping.w_avg"].mul_(0).div_(0), "w_avg has values that are not finite"),
    ],
)
def test_wrong_tensors_are_refused(saved: Path, change: Callable[[Any], None], message: str) -> None:
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(saved)
    change(tensors)
    save_file(tensors, saved, metadata=metadata)
    with pytest.raises(WeightsError, match=message):
        load_generator(saved)


def test_an_older_name_of_a_network_still_loads(tmp_path: Path) -> None:
    D, path = Discriminator(0, 16, 3, channel_base=64, channel_max=8), tmp_path / "d.safetensors"
    save_net(D, path)
    rewrite(path, lambda r: r.update(net="stylegan2.Discriminator"))
    assert read_recipe(path).net == "discriminator.Discriminator"
    back, img = load_net(path, Discriminator), torch.randn(2, 3, 16, 16)
    assert torch.equal(back(img), D(img))


def test_another_network_than_the_one_needed_is_said(tmp_path: Path, saved: Path) -> None:
    path = tmp_path / "d.safetensors"
    save_net(Discriminator(0, 16, 3, channel_base=64, channel_max=8), path)
    with pytest.raises(WeightsError, match="it holds a Discriminator, not a generator"):
        load_generator(path)
    with pytest.raises(WeightsError, match=r"it holds G_ema, a stylegan2\.Generator, not a Discriminator"):
        load_net(saved, Discriminator)


@pytest.mark.slow
def test_no_flipped_byte_does_more_than_raise(saved: Path) -> None:
    content = saved.read_bytes()
    length = int.from_bytes(content[:8], "little") + 8
    for position in range(0, length, 3):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        saved.write_bytes(damaged)
        try:
            load_generator(saved)
        except WeightsError as err:
            assert err.hint
