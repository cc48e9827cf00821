"""Style transfer on tiny pictures: the style is reached, places are kept, faces spared, nonsense refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from mien.edits.colours import grey
from mien.edits.looks import Look, bank_look, find_look, vgg_look
from mien.edits.spare import face_mask
from mien.edits.style_settings import PRESETS, StyleConfig, for_look
from mien.edits.style_terms import gram
from mien.edits.stylize import stylize
from mien.errors import Cancelled, InputError, WeightsError
from mien.faces.align import ffhq_quad
from mien.faces.detect import Face
from mien.nets.features import FaceNet
from mien.nets.vgg import VGG
from mien.report import Step

SMALL = replace(StyleConfig(), size_px=24, min_px=24, num_steps=40)


def stripes(height: int = 24, width: int = 24) -> Tensor:
    """Red and dark upright stripes, four px wide."""
    img = torch.full((1, 3, height, width), -0.8)
    img[:, 0, :, (torch.arange(width) % 8) < 4] = 0.8
    return img


def disc(size: int = 24) -> Tensor:
    """A bright disc on a darker ground, in blue."""
    at = torch.arange(size) - (size - 1) / 2
    inside = at[:, None].square() + at.square() < (size / 3) ** 2
    return torch.where(inside, 0.6, -0.4).expand(1, 3, size, size) * torch.tensor([0.3, 0.5, 1.0])[:, None, None]


@pytest.fixture(scope="module")
def face_net(make_face_net: Callable[..., FaceNet]) -> FaceNet:
    return make_face_net(0)


@pytest.fixture(scope="module")
def look(face_net: FaceNet) -> Look:
    return bank_look(face_net)


@pytest.fixture(scope="module")
def vgg() -> Look:
    torch.manual_seed(0)
    return vgg_look(VGG(depth=19).eval().requires_grad_(False))


@pytest.mark.parametrize("style_loss", ["gram", "wasserstein", "sliced"])
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_the_style_is_reached(look: Look, style_loss: str, optimizer: str) -> None:
    layers = {"patch1": 1.0} if style_loss == "sliced" else {"texture1": 1.0}
    config = replace(SMALL, style_loss=style_loss, optimizer=optimizer, style_layers=layers, content_weight=0.0)
    config = replace(config, lr=1.0 if optimizer == "lbfgs" else 0.05)
    found = stylize(disc(), [stripes()], look, config)
    names = ["texture1"]
    aim, before, now = (gram(look.maps(img, names)["texture1"]) for img in (stripes(), disc(), found.img))
    assert float((now - aim).square().sum()) < 0.4 * float((before - aim).square().sum())
    assert found.img.shape == (1, 3, 24, 24) and float(found.img.abs().max()) <= 1


def test_content_holds_places(look: Look) -> None:
    def edges(img: Tensor) -> Tensor:
        return look.maps(img, ["structure1"])["structure1"]

    free, held = (stylize(disc(), [stripes()], look, replace(SMALL, content_weight=w)) for w in (0.0, 30.0))
    off = [float((edges(found.img) - edges(disc())).square().mean()) for found in (free, held)]
    assert off[1] < 0.5 * off[0] and held.losses["content"] > 0 and "content" not in free.losses


def test_sizes_go_from_coarse_to_fine_and_keep_the_shape(look: Look) -> None:
    config = replace(SMALL, min_px=16, size_px=32, num_steps=3, num_later_steps=2)
    assert config.sizes_px == [16, 23, 32]
    steps: list[Step] = []
    found = stylize(disc()[:, :, :18], [stripes(40, 20)], look, config, on_step=steps.append)
    assert found.img.shape == (1, 3, 24, 32) and found.num_steps == 7 and list(found.step_s) == [16, 23, 32]
    assert [(s.done, s.total) for s in steps] == [(i, 7) for i in range(1, 8)]
    assert set(steps[0].scalars) == {"style", "content", "tv"}
    assert found.record["size_px"] == [32, 24] and found.record["restarts"] == {}


def test_the_same_seed_paints_the_same(look: Look) -> None:
    config = replace(SMALL, num_steps=5, start="noise")
    first, again, other = (stylize(disc(), [stripes()], look, replace(config, seed=s)).img for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_styles_are_weighed(look: Look) -> None:
    config = replace(SMALL, num_steps=15, content_weight=0.0)
    both = [stripes(), stripes().flip(1)]  # red, and blue
    red, blue = (stylize(disc(), both, look, config, style_weights=w).img for w in ((1, 0), (0, 3)))
    alone = stylize(disc(), both[:1], look, config).img
    torch.testing.assert_close(red, alone, atol=1e-3, rtol=0)
    assert float(red[:, 0].mean() - red[:, 2].mean()) > 0.1 < float(blue[:, 2].mean() - blue[:, 0].mean())


def test_luminance_keeps_colours_and_match_moves_the_styles(look: Look) -> None:
    config = replace(SMALL, num_steps=15, content_weight=0.0)
    kept = stylize(disc(), [stripes()], look, replace(config, colours="luminance")).img
    inside = kept.abs().amax(1, keepdim=True) < 0.99  # where nothing was clipped
    difference = (kept - grey(kept)) - (disc() - grey(disc()))
    assert float((difference * inside).abs().max()) < 1e-4 and not torch.allclose(grey(kept), grey(disc()), atol=0.05)
    matched = stylize(disc(), [stripes()], look, replace(config, colours="match")).img
    torch.testing.assert_close(matched.mean((0, 2, 3)), disc().mean((0, 2, 3)), atol=0.1, rtol=0)


def test_what_is_spared_stays_and_is_no_style(look: Look) -> None:
    mask = torch.zeros(1, 1, 24, 24)
    mask[..., :12] = 1
    for loss, layer in (("sliced", "patch1"), ("gram", "texture1")):
        config = replace(SMALL, num_steps=15, spare=1.0, style_loss=loss, style_layers={layer: 1.0})
        found = stylize(disc(), [stripes()], look, config, spare_mask=mask).img
        torch.testing.assert_close(found[..., :12], disc()[..., :12])
        assert float((found[..., 12:] - disc()[..., 12:]).abs().mean()) > 0.05
    half = stylize(disc(), [stripes()], look, replace(SMALL, num_steps=3, spare=0.0), spare_mask=mask).img
    assert not torch.allclose(half[..., :12], disc()[..., :12], atol=1e-3)


def test_the_mask_covers_faces_softly() -> None:
    points = np.array([[40.0, 45], [60, 45], [50, 56], [42, 68], [58, 68]])
    face = Face(np.array([30.0, 30, 70, 80]), points, 0.9)
    mask = face_mask((120, 100), [face])
    assert mask.shape == (1, 1, 100, 120) and float(mask.max()) == 1 and float(mask.min()) == 0
    assert all(float(mask[0, 0, int(y), int(x)]) == 1 for x, y in points)
    quad = ffhq_quad(points)
    assert all(float(mask[0, 0, min(99, max(0, int(y))), min(119, max(0, int(x)))]) == 0 for x, y in quad)
    assert float((mask[..., 1:] - mask[..., :-1]).abs().max()) < 0.35
    assert float(face_mask((8, 8), []).max()) == 0


def test_previews_are_pictures(look: Look, tmp_path: Path) -> None:
    out, steps = tmp_path / "now.png", list[Step]()
    config = replace(SMALL, num_steps=5)
    stylize(disc(), [stripes()], look, config, preview=out, preview_every=2, on_step=steps.append)
    assert [bool(step.pictures) for step in steps] == [True, False, True, False, True]
    with PIL.Image.open(out) as image:
        assert image.size == (24, 24)


def test_it_can_be_stopped(look: Look) -> None:
    def stop(step: Step) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        stylize(disc(), [stripes()], look, SMALL, on_step=stop)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "patches"])
def test_every_setting_of_vgg19_runs_on_it_and_on_its_stand_ins(vgg: Look, look: Look, name: str) -> None:
    for eyes in (vgg, look):
        suited = for_look(PRESETS[name], eyes)
        config = replace(suited, size_px=48, min_px=48, num_steps=2, start="content")
        found = stylize(disc(48), [stripes(48, 48)], eyes, config)
        assert bool(found.img.isfinite().all()) and found.losses["style"] > 0
    assert for_look(PRESETS[name], vgg) == PRESETS[name]
    assert for_look(PRESETS[name], look).distance == "relative"


def test_our_own_setting_is_as_it_is_for_all() -> None:
    assert for_look(PRESETS["patches"], bank_look(None)) == PRESETS["patches"] == StyleConfig()


def test_whose_eyes_is_said(tmp_path: Path) -> None:
    assert bank_look(None).record == {"features": "shipped", "weights": {}}
    with pytest.raises(WeightsError, match="vgg19"):
        find_look("vgg19", cache=tmp_path, offline=True)
    with pytest.raises(InputError, match="no features named 'vgg11'"):
        find_look("vgg11")


def test_the_face_network_looks_at_the_whole_picture(look: Look) -> None:
    maps = look.maps(torch.rand(1, 3, 64, 96), ["face1", "texture1", "face3"])
    assert [list(m.shape[1:]) for m in maps.values()] == [[4, 16, 24], [64, 64, 96], [4, 4, 6]]
    with pytest.raises(InputError, match="no layer 'face1'"):
        bank_look(None).maps(disc(), ["face1"])


def test_wrong_use(look: Look) -> None:
    with pytest.raises(InputError, match="no style_loss named 'mrf'"):
        StyleConfig(style_loss="mrf")
    with pytest.raises(InputError, match="sizes must be"):
        StyleConfig(size_px=4096)
    with pytest.raises(InputError, match="content_weight must be a number"):
        StyleConfig(content_weight=float("nan"))
    with pytest.raises(InputError, match="one is needed for the style"):
        StyleConfig(style_layers={})
    with pytest.raises(InputError, match="0 styles"):
        stylize(disc(), [], look, SMALL)
    with pytest.raises(InputError, match="weights of styles"):
        stylize(disc(), [stripes()], look, SMALL, style_weights=[0])
    with pytest.raises(InputError, match=r"style 1 must be \[1, 3, H, W\]"):
        stylize(disc(), [stripes()[0]], look, SMALL)
    with pytest.raises(InputError, match="the content holds values that are not numbers"):
        stylize(disc() * torch.nan, [stripes()], look, SMALL)
    with pytest.raises(InputError, match="the mask is"):
        stylize(disc(), [stripes()], look, SMALL, spare_mask=torch.zeros(1, 1, 8, 8))
