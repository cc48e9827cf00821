"""Fixtures for every test: quiet threads, recorded numbers, and the data beside the repository of a developer."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import torch
from torch import Tensor

from mien.nets.features import EXPRESSIONS, FaceNet
from mien.nets.stylegan2 import Generator

if "OMP_NUM_THREADS" not in os.environ:  # the tests are many small jobs: more threads only wait for one another
    torch.set_num_threads(min(2, os.cpu_count() or 1))

REPOSITORY = Path(__file__).resolve().parent.parent
PEOPLE = [f"person_{i}" for i in range(10)]  # of whom person_8 is held out, see `is_held_out`
KEPT_OUT = ["person_30", "person_47"]
FIVE = np.array([[100.0, 105], [150, 105], [125, 130], [105, 155], [145, 155]])  # eyes, nose, mouth of a scene, px
Agree = Callable[..., None]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository (photos, recorded numbers); the test is skipped where it is absent."""
    path = Path(os.environ.get("MIEN_SHARED", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no {path}: this test needs the developers' photos")
    return path


@pytest.fixture
def data() -> Path:
    """The recorded numbers that belong to the tests."""
    return REPOSITORY / "tests" / "data"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For networks that are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_G() -> Callable[..., Generator]:
    """Return what makes tiny generators, each anew: by its seed always the same one."""

    def make(
        seed: int = 0,
        *,
        z_dim: int = 8,
        w_dim: int = 8,
        img_resolution: int = 16,
        num_layers: int = 1,
        channel_base: int = 256,
        channel_max: int = 8,
    ) -> Generator:
        torch.manual_seed(seed)
        widths = dict(channel_base=channel_base, channel_max=channel_max)
        net = Generator(z_dim, 0, w_dim, img_resolution, 3, dict(num_layers=num_layers), synthesis_kwargs=widths)
        return net.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="module")
def G(make_G: Callable[..., Generator]) -> Generator:
    """The tiny generator of most tests: 16 px, z and w of 8."""
    return make_G()


@pytest.fixture(scope="session")
def make_face_net() -> Callable[[int], FaceNet]:
    """Return what makes a tiny face network from a seed."""

    def make(seed: int) -> FaceNet:
        torch.manual_seed(seed)
        net = FaceNet(channels=(4, 4, 4, 4), num_blocks=(0, 0, 0, 0), embedding_dim=8, norm=False)
        return net.eval().requires_grad_(False)

    return make


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of downloads, and no way to fill it."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MIEN_OFFLINE", "1")
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


class Recorded:
    """One file of recorded arrays, as tensors, with what was written about them."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as held:
            self.meta: dict[str, Any] = json.loads(str(held["meta_json"]))
            self.arrays = {name: torch.from_numpy(held[name]) for name in held.files if name != "meta_json"}

    def __getitem__(self, name: str) -> Tensor:
        """An array; what was kept in float16 comes as float32."""
        value = self.arrays[name]
        return value.float() if value.dtype == torch.float16 else value

    def get(self, name: str) -> Tensor | None:
        """An array, or None where a case has no such input."""
        return self[name] if name in self.arrays else None


@pytest.fixture
def recorded(data: Path) -> Callable[[str | Path], Recorded]:
    return lambda name: Recorded(data / f"{name}.npz")


@pytest.fixture(scope="session")
def agree() -> Agree:
    """Say whether a result is the recorded one but for rounding: five times what the official code has of it."""

    def check(actual: Tensor, expected: Tensor, what: object = "", tolerance: float = 5e-5) -> None:
        assert actual.shape == expected.shape, what
        worst = (actual - expected).abs().max().item() / max(1.0, expected.abs().max().item())
        assert worst <= tolerance, f"{what}: off by {worst:.1e}"

    return check


KEPT = ("resample_filter", "up_filter", "down_filter", ".kernel", ".transform", "num_batches_tracked")


def official_recipe(name: str, like: Tensor, seed: int) -> Tensor:
    """The weights of a full-size official network, which are too many to be kept: by their names in its code."""
    if name.endswith(KEPT):
        return like
    r = np.random.RandomState((zlib.crc32(name.encode()) ^ seed) & 0xFFFFFFFF)
    is_mapping = "mapping.fc" in name or "g_mapping.dense" in name or name.startswith("style.")
    if name.endswith("magnitude_ema"):
        return torch.tensor(0.5 + 1.5 * r.uniform(), dtype=torch.float32)
    if name.endswith("noise_strength"):
        return torch.tensor(0.05 + 0.25 * r.uniform(), dtype=torch.float32)
    if name.endswith("running_var"):
        return torch.from_numpy(0.5 + r.uniform(size=tuple(like.shape))).float()
    if name.endswith(".phases"):
        return torch.from_numpy(r.uniform(size=tuple(like.shape)) - 0.5).float()
    n = r.standard_normal(tuple(like.shape))
    if name.endswith("w_avg"):
        n = 0.1 * n
    elif name.endswith("affine.bias") and like.shape == (4,):
        n = np.array([1, 0, 0, 0]) + 0.1 * n
    elif name.endswith(".bias"):
        n = float(name.endswith(("affine.bias", "modulation.bias"))) + (10 if is_mapping else 0.1) * n
    elif name.endswith(".weight") and is_mapping:
        n = 100 * n
    elif name.endswith("input.affine.weight"):
        n = 0.3 * n
    elif name.endswith(".freqs"):
        n = 2 * n
    return torch.from_numpy(n).float()


def generic_recipe(name: str, like: Tensor, seed: int) -> Tensor:
    """The weights of an official network with batch or layer norms."""
    if not like.is_floating_point():
        return like
    r = np.random.RandomState((zlib.crc32(name.encode()) ^ seed) & 0xFFFFFFFF)
    n = r.standard_normal(tuple(like.shape))
    if name.endswith("running_var"):
        return torch.from_numpy(0.5 + r.uniform(size=tuple(like.shape))).float()
    if like.ndim >= 2 and not name.endswith("running_mean"):
        n = n * 1.4 / np.sqrt(np.prod(like.shape[1:]))
    else:
        n = float(name.endswith(".weight")) + 0.1 * n
    return torch.from_numpy(n).float()


@pytest.fixture(scope="session")
def by_recipe() -> Callable[..., dict[str, Tensor]]:
    """Fill a state dict of official names with the values that their recorded outputs belong to."""

    def fill(state: Mapping[str, Tensor], seed: int, recipe: str = "official") -> dict[str, Tensor]:
        value = {"official": official_recipe, "generic": generic_recipe}[recipe]
        return {name: value(name, like, seed) for name, like in state.items()}

    return fill


def draw_face(size_px: int, seed: int) -> PIL.Image.Image:
    """A drawn face whose colours and place tell the seed."""
    rng = np.random.default_rng(seed)
    image = PIL.Image.new("RGB", (size_px, size_px), tuple(rng.integers(0, 120, 3).tolist()))
    pen, centre, half = PIL.ImageDraw.Draw(image), size_px / 2 + rng.normal(0, size_px / 40, 2), size_px * 0.35
    pen.ellipse([*(centre - half), *(centre + half)], fill=tuple(rng.integers(140, 255, 3).tolist()))
    for dx in (-0.4, 0.4):
        eye = centre + half * np.array([dx, -0.2])
        pen.ellipse([*(eye - half / 8), *(eye + half / 8)], fill="black")
    return image


def write_zip(path: Path, size_px: int, columns: list[str], rows: list[list[object]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for i, row in enumerate(rows):
            picture = path.with_name("picture.png")
            draw_face(size_px, i).save(picture)
            archive.write(picture, str(row[0]))
            picture.unlink()
    lines = [",".join(map(str, line)) for line in [columns, *rows]]
    path.with_suffix(".csv").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="session")
def drawn_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny sets of drawings with their tables, as the shipped networks are trained on."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    people = [*PEOPLE, *KEPT_OUT]
    faces = [
        [f"{name}_{k}.png", name, 0, 100.0, *rng.normal(0, 10, 3), *rng.random(len(EXPRESSIONS))]
        for name in people
        for k in range(4)
    ]
    columns = ["file", "identity", "grey", "sharpness", "yaw_deg", "pitch_deg", "roll_deg", *EXPRESSIONS]
    write_zip(folder / "faces128.zip", 128, columns, faces)
    ages: list[list[object]] = [[f"{i}.png", 20.0 + i, "male" if i % 2 else "female"] for i in range(40)]
    write_zip(folder / "ages128.zip", 128, ["file", "age", "gender"], ages)
    points = [f"{part}_{axis}" for part in ("leye", "reye", "nose", "lmouth", "rmouth") for axis in "xy"]
    scenes: list[list[object]] = [[f"{name}_0001.png", 0.9, 37, 37, 213, 213, *FIVE.ravel()] for name in PEOPLE]
    write_zip(folder / "scenes250.zip", 250, ["file", "score", "x0", "y0", "x1", "y1", *points], scenes)
    toons: list[list[object]] = [[f"toon_{i}.png", ("comic", "impasto")[i % 2], 64] for i in range(12)]
    write_zip(folder / "toons128.zip", 128, ["file", "style", "native_px"], toons)
    return folder
