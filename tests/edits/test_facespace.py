"""FaceSpace: corners are the people, blends follow the weights, and files come back whole."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mien.edits.facespace import FaceSpace, FaceSpaceConfig, differences, fit, load_facespace, save_facespace
from mien.errors import InputError, UnsupportedFileError
from mien.latents import latent_stats, sample_ws, synthesize
from mien.nets.stylegan2 import Generator

QUICK = FaceSpaceConfig(num_cycles=2, num_steps=15, hidden=16)


@pytest.fixture(scope="module")
def G(make_G: Callable[..., Generator]) -> Generator:
    return make_G(z_dim=12, w_dim=12, num_layers=2, channel_max=16)


@pytest.fixture(scope="module")
def ws(G: Generator) -> torch.Tensor:
    return sample_ws(G, [1, 2, 3])


@pytest.fixture(scope="module")
def space(G: Generator, ws: torch.Tensor) -> FaceSpace:
    img = synthesize(G, sample_ws(G, [1, 2, 3], truncation_psi=1.2))  # near the codes, not of them
    w_std = latent_stats(G, num=500).w_std
    return fit(G, ws, img, names=("anna", "bert", "cleo"), config=QUICK, w_std=w_std)


def test_untrained_it_is_the_weighted_mean(G: Generator, ws: torch.Tensor) -> None:
    direct = fit(G, ws, synthesize(G, ws), config=FaceSpaceConfig(num_cycles=0))
    torch.testing.assert_close(direct.blend([1, 2, 1]), 0.25 * ws[0] + 0.5 * ws[1] + 0.25 * ws[2])
    assert torch.equal(direct.blend([3, 0, 0]), direct.blend([1, 0, 0]))


def test_fitting_brings_the_corners_nearer(G: Generator, ws: torch.Tensor, space: FaceSpace) -> None:
    img = synthesize(G, sample_ws(G, [1, 2, 3], truncation_psi=1.2))
    corners = torch.stack([space.blend(row) for row in torch.eye(3).tolist()])
    before, after = (float((synthesize(G, codes) - img).square().mean()) for codes in (ws, corners))
    assert after < before


def test_blends_follow_the_weight_of_a_person(space: FaceSpace) -> None:
    goal = space.blend([0, 1, 0])
    far = [float((space.blend([1 - t, t, 0.3]) - goal).norm()) for t in torch.linspace(0, 1, 9).tolist()]
    assert all(b < a for a, b in pairwise(far))


def test_a_morph_goes_from_one_to_the_other(space: FaceSpace) -> None:
    codes = space.morph(0, 2, 5)
    torch.testing.assert_close(codes[0], space.blend([1, 0, 0]))
    torch.testing.assert_close(codes[-1], space.blend([0, 0, 1]))
    torch.testing.assert_close(codes[2], space.blend([1, 0, 1]))
    assert (codes[1] - codes[0]).norm() < (codes[2] - codes[1]).norm()


def test_files_come_back_whole(space: FaceSpace, tmp_path: Path) -> None:
    save_facespace(space, tmp_path / "friends.safetensors", config=QUICK)
    again = load_facespace(tmp_path / "friends.safetensors")
    assert again.names == ("anna", "bert", "cleo")
    assert torch.equal(again.blend([1, 2, 3]), space.blend([1, 2, 3]))
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("text.safetensors", "missing.safetensors"):
        with pytest.raises(UnsupportedFileError, match="holds no space of faces"):
            load_facespace(tmp_path / name)


def test_unlike_pictures_are_warned_of() -> None:
    img = torch.zeros(3, 3, 8, 8)
    assert differences(img, torch.tensor([0.0, 5.0, -5.0])) == []
    assert "40 degrees apart" in differences(img, torch.tensor([0.0, 20.0, -20.0]))[0]
    img[1] = 0.9
    assert "lighter than the darkest" in differences(img, torch.zeros(3))[0]


def test_wrong_wishes_are_refused(G: Generator, ws: torch.Tensor, space: FaceSpace) -> None:
    with pytest.raises(InputError, match="2 weights for 3 people"):
        space.blend([1, 1])
    with pytest.raises(InputError, match="weights must be at least 0"):
        space.blend([1, -1, 1])
    with pytest.raises(InputError, match="weights must be at least 0"):
        space.blend([0, 0, 0])
    with pytest.raises(InputError, match="people go from 0 to 2"):
        space.morph(0, 3, 5)
    with pytest.raises(InputError, match="at least 2 pictures"):
        space.morph(0, 1, 1)
    with pytest.raises(InputError, match="at least two people"):
        fit(G, ws[:1], torch.zeros(1, 3, 16, 16))
    with pytest.raises(InputError, match="anneal at most 1"):
        FaceSpaceConfig(anneal=2.0)
