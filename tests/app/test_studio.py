"""The studio's own rules, on tiny networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from mien.app.capabilities.networks import pick_device
from mien.app.settings import DEFAULT_NETWORK
from mien.app.studio import Studio
from mien.errors import InputError
from mien.faces.align import Crop, align
from mien.faces.detect import Face

FIVE = np.array([[-20.0, -15], [20, -15], [0, 5], [-14, 25], [14, 25]])


@pytest.fixture
def studio(tiny_nets: Path) -> Studio:
    return Studio(tiny_nets / f"{DEFAULT_NETWORK}.safetensors", device="cpu", face_net=None)


def crop_at(x: float, y: float) -> Crop:
    return align(photo(), Face(np.array([x - 40, y - 40, x + 40, y + 40]), FIVE * 0.8 + [x, y], 0.9), 16)


def photo() -> PIL.Image.Image:
    ramp = torch.linspace(0, 255, 200)
    return PIL.Image.fromarray(torch.stack([ramp.expand(200, 200)] * 3, dim=2).to(torch.uint8).numpy())


def test_a_face_that_is_not_changed_leaves_its_neighbour_as_it_is(studio: Studio) -> None:
    first, second = crop_at(80, 100), crop_at(120, 100)
    code, other = studio.seed_code(1), studio.seed_code(2)
    changed = studio.paste(photo(), first, other, code)
    assert np.abs(np.asarray(changed).astype(int) - np.asarray(photo())).max() > 20
    again = studio.paste(changed, second, code, code)
    assert np.abs(np.asarray(again).astype(int) - np.asarray(changed)).max() <= 1


def test_no_change_gives_the_photo_itself(studio: Studio) -> None:
    crop = crop_at(100, 100)
    code = studio.seed_code(1)
    assert np.array_equal(np.asarray(studio.paste(photo(), crop, code, code)), np.asarray(photo()))


def test_a_code_takes_the_place_of_a_tuned_one(studio: Studio, tmp_path: Path) -> None:
    img, out = torch.zeros(1, 3, studio.G.img_resolution, studio.G.img_resolution), tmp_path / "anna_0.png"
    for method in ("average+pti", "average+none"):
        studio.save(studio.invert(img, method=method, num_steps=1 if "pti" in method else None)[0], out)
        assert out.with_suffix(".mien").exists() == ("pti" in method)
        assert studio.finished(out, img, method=method, num_steps=1 if "pti" in method else None)


def test_devices_by_name() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    for name in ("toaster", "cpu:abc"):
        with pytest.raises(InputError, match="no device named"):
            pick_device(name)
