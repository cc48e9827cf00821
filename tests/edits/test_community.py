"""Published directions: every known form moves codes as its vectors say; anything else is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mien.edits.community import read_community
from mien.edits.directions import load_directions, save_directions
from mien.errors import WeightsError
from mien.nets.stylegan2 import Generator


@pytest.fixture(scope="module")
def G(make_G: Callable[..., Generator]) -> Generator:
    return make_G(img_resolution=8, channel_base=128)


def test_a_vector_for_each_row(G: Generator, tmp_path: Path) -> None:
    rows = np.random.RandomState(0).randn(G.num_ws, 8)
    np.save(tmp_path / "smile.npy", rows)
    found = read_community(G, tmp_path / "smile.npy", network="ab")
    ws = torch.randn(2, G.num_ws, 8)
    moved = found.apply(ws, {"smile": 2.0})
    torch.testing.assert_close(moved - ws, 2 * torch.from_numpy(rows).float().expand(2, -1, -1))
    save_directions(found, tmp_path / "smile.safetensors")
    again = load_directions(tmp_path / "smile.safetensors")
    assert again.network == "ab"
    assert torch.equal(again.apply(ws, {"smile": 2.0}), moved)


def test_one_vector_repeated_is_one_vector(G: Generator, tmp_path: Path) -> None:
    row = np.random.RandomState(0).randn(1, 8)
    np.save(tmp_path / "age.npy", np.repeat(row, G.num_ws, axis=0))
    np.save(tmp_path / "boundary.npy", row)
    torch.save(torch.from_numpy(row).float()[None], tmp_path / "pose.pt")
    for name in ("age.npy", "boundary.npy", "pose.pt"):
        direction = read_community(G, tmp_path / name)[Path(name).stem]
        torch.testing.assert_close(direction.vector, torch.from_numpy(row[0]).float())
        assert direction.layers == tuple(range(G.num_ws))


def test_principal_components(G: Generator, tmp_path: Path) -> None:
    comp, std = torch.randn(3, 1, 8), torch.tensor([3.0, 2.0, 1.0])
    torch.save({"lat_comp": comp, "lat_std": std, "lat_mean": torch.zeros(1, 8)}, tmp_path / "pca.pt")
    np.savez(tmp_path / "cache.npz", lat_comp=comp.numpy(), lat_stdev=std.numpy(), act_comp=np.zeros(2))
    for name in ("pca.pt", "cache.npz"):
        found = read_community(G, tmp_path / name)
        stem = Path(name).stem
        assert sorted(found.directions) == [f"{stem}0", f"{stem}1", f"{stem}2"]
        torch.testing.assert_close(found[f"{stem}1"].vector, 2 * comp[1, 0])


def test_everything_else_is_refused(G: Generator, tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.zeros((18, 512)))
    with pytest.raises(WeightsError, match=r"large.npy: a direction \[18, 512\] does not fit") as caught:
        read_community(G, tmp_path / "large.npy")
    assert "--network" in caught.value.hint
    np.save(tmp_path / "code.npy", np.array([print]), allow_pickle=True)
    with pytest.raises(WeightsError, match=r"code\.npy: damaged, or not an array"):
        read_community(G, tmp_path / "code.npy")
    np.save(tmp_path / "nan.npy", np.full(8, np.nan))
    with pytest.raises(WeightsError, match="does not fit"):
        read_community(G, tmp_path / "nan.npy")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.txt").write_text("smile")
    for name, words in {
        "cut.npz": "damaged",
        "other.pt": "no principal components",
        "list.pt": "holds no directions",
        "text.txt": "no file of directions",
        "missing.npy": "no directions at",
    }.items():
        with pytest.raises(WeightsError, match=words):
            read_community(G, tmp_path / name)
