"""The bank of textures: what its maps are, and what they do not feel."""

from __future__ import annotations

import pytest
import torch

from mien.errors import InputError
from mien.nets.textures import NUM_LEVELS, TextureBank

NAMES = [f"{kind}{i}" for kind in ("colour", "patch", "detail", "texture", "structure") for i in (1, NUM_LEVELS)]


def test_maps_come_by_name_and_size() -> None:
    bank, img = TextureBank(), torch.rand(2, 3, 200, 193) * 2 - 1
    shapes = [list(m.shape) for m in bank.maps(img, NAMES)]
    fine, coarse = [200, 193], [13, 13]
    assert shapes == [[2, n, *size] for n in (3, 3, 3, 64, 4) for size in (fine, coarse)]
    small = bank.maps(img[..., :20, :20], ["patch1", "patch5"])
    assert [list(m.shape[2:]) for m in small] == [[20, 20], [20, 20]]  # a level is never too small


def test_filters_are_fixed_and_orthonormal() -> None:
    flat = TextureBank().filters.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(len(flat)), atol=1e-5, rtol=0)
    assert torch.equal(TextureBank().filters, TextureBank().filters)
    assert not torch.equal(TextureBank(seed=1).filters, TextureBank().filters)


def test_a_flat_picture_has_no_structure() -> None:
    flat = torch.full((1, 3, 32, 32), 0.3)
    for found in TextureBank().maps(flat, ["structure1", "detail1"]):
        assert float(found.abs().max()) < 1e-3


def test_structure_does_not_feel_contrast() -> None:
    bank, img = TextureBank(), torch.rand(1, 3, 48, 48) - 0.5
    dark, bright = (bank.maps(x, ["structure2"])[0] for x in (0.5 * img + 0.2, img))
    torch.testing.assert_close(dark, bright, atol=2e-2, rtol=2e-2)


def test_colours_are_brightness_and_opponents() -> None:
    red = torch.tensor([1.0, -1, -1])[:, None, None].expand(1, 3, 16, 16)
    colour, patch = TextureBank().maps(red, ["colour1", "patch2"])
    torch.testing.assert_close(colour[0, :, 3, 3], torch.tensor([0.299 - 0.587 - 0.114, 3.0, 1.5]))
    torch.testing.assert_close(patch[0, :, 3, 3], colour[0, :, 3, 3])


def test_structure_points_along_the_slope() -> None:
    slope = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)  # brighter to the right
    inner = TextureBank().maps(slope, ["structure1"])[0][0, :, 8:-8, 8:-8].mean((1, 2))
    assert float(inner[0]) > 0 and abs(float(inner[2])) < 1e-3  # along x, and across it
    torch.testing.assert_close(inner[1], -inner[3], atol=1e-3, rtol=0)  # both diagonals


def test_wrong_use() -> None:
    with pytest.raises(InputError, match="no layer 'relu1_1'"):
        TextureBank().maps(torch.zeros(1, 3, 32, 32), ["relu1_1"])
    with pytest.raises(InputError, match="at least 12 px"):
        TextureBank().maps(torch.zeros(1, 3, 8, 32), ["patch1"])
