"""Digests of what networks are made from: of their numbers, not of their files."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mien.nets.features import FaceNet
from mien.training.provenance import made_from, net_digest, provenance
from mien.weights.load import save_net


@pytest.fixture
def net() -> FaceNet:
    torch.manual_seed(0)
    return FaceNet(channels=(4, 4, 4, 4), num_blocks=(0, 0, 0, 0), embedding_dim=8, norm=False)


def test_the_digest_is_of_the_numbers(net: FaceNet, tmp_path: Path) -> None:
    for name, facts in (("a", {}), ("b", {"kimg": 3})):
        save_net(net, tmp_path / f"{name}.safetensors", provenance=facts)
    found = made_from([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    assert found == {"a.safetensors": net_digest(net), "b.safetensors": net_digest(net)}
    other = copy.deepcopy(net)
    other.places.weight.data[0, 0, 0] += 1e-6
    assert net_digest(other) != net_digest(net)


def test_data_come_with_their_tables(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Config:
        widths: tuple[int, ...] = (1, 2)

    (tmp_path / "set.zip").write_bytes(b"abc")
    (tmp_path / "set.csv").write_bytes(b"")
    facts = provenance(Config(), [tmp_path / "set.zip"], steps=5)
    assert facts["config"] == {"widths": [1, 2]} and facts["steps"] == 5
    assert {name: digest[:8] for name, digest in facts["made_from"].items()} == {
        "set.zip": "ba7816bf",  # the standard's example
        "set.csv": "e3b0c442",
    }
