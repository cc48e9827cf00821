"""Augmentations against their definitions: what moves where, what each change of colour keeps, how p is steered."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mien.errors import InputError
from mien.training.augment import (
    SYM6,
    AdaController,
    AugmentConfig,
    _GridSample,
    _resamplers,
    augment,
    sample_colors,
    sample_warps,
    warp,
)

ALL = ("x_flip", "rotate90", "translate_int", "scale", "rotate", "stretch", "translate")
ALL += ("brightness", "contrast", "luma_flip", "hue", "saturation")


def only(*names: str, **strengths: float) -> AugmentConfig:
    return AugmentConfig(**{name: float(name in names) for name in ALL}, **strengths)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=dice(9)) * 2 - 1


def blob(size_px: int, x: float, y: float) -> Tensor:
    """A bright spot at (x, y), sides at -1 and 1, on one picture [1, 3, size_px, size_px]."""
    places = (torch.arange(size_px) + 0.5) * 2 / size_px - 1
    spot = torch.exp(-((places[None] - x).square() + (places[:, None] - y).square()) / 0.02)
    return spot.expand(1, 3, -1, -1).contiguous()


def centre(img: Tensor) -> list[float]:
    size_px = img.shape[-1]
    places = (torch.arange(size_px) + 0.5) * 2 / size_px - 1
    weight = img[0, 0] / img[0, 0].sum()
    return [(weight.sum(0) * places).sum().item(), (weight.sum(1) * places).sum().item()]


# ---- The filter -----------------------------------------------------------------------------------------------------


def test_the_filter_is_an_orthogonal_wavelet_with_six_vanishing_moments() -> None:
    h = torch.tensor(SYM6, dtype=torch.float64)
    assert h.sum().item() == pytest.approx(math.sqrt(2), abs=1e-9)
    for shift in range(6):
        product = (h[2 * shift :] * h[: len(h) - 2 * shift]).sum().item()
        assert product == pytest.approx(float(shift == 0), abs=1e-9)
    high_pass = h * (-1.0) ** torch.arange(12)
    for moment in range(6):
        assert (high_pass * (torch.arange(12, dtype=torch.float64) - 5.5) ** moment).sum().abs() < 1e-6


@pytest.mark.parametrize("size_px", [4, 64])
def test_enlarging_and_shrinking_is_the_identity(size_px: int) -> None:
    enlarge, shrink = _resamplers(size_px, torch.device("cpu"))
    torch.testing.assert_close(shrink @ enlarge, torch.eye(size_px))
    torch.testing.assert_close(enlarge.sum(dim=1), torch.ones(2 * size_px + 12))


# ---- Where pixels go ------------------------------------------------------------------------------------------------


def test_at_p_0_nothing_changes() -> None:
    img = noise(4, 3, 16, 16)
    assert torch.equal(augment(img, 0.0, dice()), img)


def test_flips_and_right_angles_keep_every_pixel() -> None:
    img = noise(64, 3, 8, 8)
    flipped = augment(img, 1.0, dice(), config=only("x_flip"))
    is_flipped = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, img, strict=True)]
    is_kept = [torch.equal(a, b) for a, b in zip(flipped, img, strict=True)]
    assert all(f != k for f, k in zip(is_flipped, is_kept, strict=True)) and 20 < sum(is_flipped) < 44
    turned = augment(img, 1.0, dice(), config=only("rotate90"))
    turns = [[k for k in range(4) if torch.equal(a, b.rot90(k, [1, 2]))] for a, b in zip(turned, img, strict=True)]
    assert {k for (k,) in turns} == {0, 1, 2, 3}


def test_whole_pixels_move_exactly() -> None:
    img = noise(8, 3, 32, 32)
    matrices = sample_warps(8, 32, 1.0, dice(), only("translate_int"))
    moved = warp(img, matrices)
    for before, after, matrix in zip(img, moved, matrices, strict=True):
        x, y = (matrix[:2, 2] * 16).round().int().tolist()
        assert max(abs(x), abs(y)) <= 4
        inner = after[:, 6:-6, 6:-6]
        torch.testing.assert_close(inner, before[:, 6 + y : 26 + y, 6 + x : 26 + x], rtol=0, atol=1e-4)


def test_a_warp_carries_a_spot_where_its_matrix_says() -> None:
    config = only("scale", "rotate", "stretch", "translate", translate_std=0.05)
    for matrix in sample_warps(6, 64, 1.0, dice(), config):
        goal = (matrix.inverse() @ torch.tensor([0.2, -0.3, 1]))[:2].tolist()
        assert centre(warp(blob(64, 0.2, -0.3), matrix[None])) == pytest.approx(goal, abs=0.008)  # a quarter pixel


def test_a_turn_is_a_turn() -> None:
    img = blob(64, 0.4, 0.1) + blob(64, -0.2, 0.5)
    quarter = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]])
    torch.testing.assert_close(warp(img, quarter), img.rot90(1, [2, 3]), rtol=0, atol=5e-3)


def test_shrinking_does_not_alias() -> None:
    stripes = torch.ones(1, 3, 64, 64)
    stripes[..., ::2] = -1
    half = torch.diag(torch.tensor([1.9, 1.9, 1.0]))[None]
    assert warp(stripes, half)[..., 20:44, 20:44].abs().max() < 0.05


def test_beyond_its_sides_a_picture_is_mirrored() -> None:
    img = blob(64, 0.8, 0.0)
    shift = torch.eye(3)[None].clone()
    shift[0, 0, 2] = 0.6  # the spot goes to 0.2, its mirror image (at 1.2) to 0.6
    img = warp(img, shift)
    assert img[0, 0, 32, 38].item() == pytest.approx(1, abs=0.1)
    assert img[0, 0, 32, 51].item() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("name", ["scale", "stretch"])
def test_factors_are_log_normal(name: str) -> None:
    matrices = sample_warps(4000, 64, 1.0, dice(), only(name))
    log2 = torch.stack([matrices[:, 0, 0], matrices[:, 1, 1]]).log2()
    assert log2.std(dim=1).tolist() == pytest.approx([0.2, 0.2], rel=0.05)
    torch.testing.assert_close(log2[1], log2[0] if name == "scale" else -log2[0])


def test_turns_keep_lengths_and_reach_every_angle() -> None:
    matrices = sample_warps(2000, 64, 1.0, dice(), only("rotate"))[:, :2, :2]
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(2).expand_as(matrices), rtol=0, atol=1e-5)
    angles = torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0])
    assert angles.std().item() == pytest.approx(math.pi / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("name", ["translate_int", "scale", "rotate", "stretch", "translate"])
def test_a_warp_comes_with_probability_p(name: str) -> None:
    matrices = sample_warps(4000, 64, torch.tensor(0.3), dice(), only(name))
    share = (matrices != torch.eye(3)).flatten(1).any(dim=1).float().mean().item()
    assert share == pytest.approx(0.3 * (80 / 81 if name == "translate_int" else 1), abs=0.03)


# ---- Colours --------------------------------------------------------------------------------------------------------


def test_each_change_of_colour_is_its_definition() -> None:
    grey, red = torch.tensor([0.5, 0.5, 0.5, 1]), torch.tensor([1.0, 0, 0, 1])
    eye = torch.eye(4)

    change = sample_colors(2000, 1.0, dice(), only("brightness"))
    assert (change @ red)[:, 0].std().item() == pytest.approx(0.2, rel=0.05)
    torch.testing.assert_close(change[:, :, :3], eye[:, :3].expand(2000, -1, -1))

    change = sample_colors(2000, 1.0, dice(), only("contrast"))
    assert (change @ red)[:, 0].log2().std().item() == pytest.approx(0.5, rel=0.05)
    torch.testing.assert_close(change[:, 1, 1], change[:, 0, 0])

    change = sample_colors(200, 1.0, dice(), only("luma_flip"))
    is_flipped = (change @ grey)[:, 0] < 0
    assert 70 < is_flipped.sum() < 130
    torch.testing.assert_close((change @ grey)[is_flipped][0, :3], -grey[:3])
    colour = torch.tensor([1.0, -1, 0, 1])  # no luma: stays
    torch.testing.assert_close(change @ colour, colour.expand(200, -1))

    change = sample_colors(200, 1.0, dice(), only("hue"))
    torch.testing.assert_close(change @ grey, grey.expand(200, -1))
    torch.testing.assert_close((change @ red)[:, :3].square().sum(1), torch.ones(200))
    torch.testing.assert_close(change.det(), torch.ones(200))
    assert (change @ red)[:, :3].std(dim=0).min() > 0.3

    change = sample_colors(2000, 1.0, dice(), only("saturation"))
    torch.testing.assert_close(change @ grey, grey.expand(2000, -1))
    assert (change @ colour)[:, 0].log2().std().item() == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("name", ["brightness", "contrast", "luma_flip", "hue", "saturation"])
def test_a_colour_comes_with_probability_p(name: str) -> None:
    matrices = sample_colors(4000, 0.3, dice(), only(name))
    share = ((matrices - torch.eye(4)).abs() > 1e-6).flatten(1).any(dim=1).float().mean().item()
    assert share == pytest.approx(0.15 if name == "luma_flip" else 0.3, abs=0.03)


def test_colours_are_changed_pixel_by_pixel() -> None:
    img = noise(3, 3, 8, 8)
    names = ("brightness", "contrast", "hue", "saturation", "luma_flip")
    out = augment(img, 1.0, dice(3), config=only(*names))
    state = dice(3)
    augment(img[:, :, :4, :4], 1.0, state, config=only(*names))  # reads as many random numbers, whatever the size
    after = augment(img, 1.0, dice(3), config=only(*names))
    assert torch.equal(out, after)
    pixel = augment(img[:, :, 2:3, 5:6], 1.0, dice(3), config=only(*names))
    torch.testing.assert_close(pixel, out[:, :, 2:3, 5:6])


# ---- The pipe -------------------------------------------------------------------------------------------------------


def test_randomness_is_the_generators_alone() -> None:
    img = noise(6, 3, 16, 16)
    torch.manual_seed(0)
    first = augment(img, 0.7, dice(1))
    torch.manual_seed(1)
    assert torch.equal(first, augment(img, 0.7, dice(1)))
    assert not torch.equal(first, augment(img, 0.7, dice(2)))
    states = []
    for p in (0.0, 0.5):
        generator = dice(1)
        augment(img, p, generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_pictures_that_stay_are_not_touched_by_those_that_change() -> None:
    img = noise(32, 3, 16, 16)
    config = only("translate", "contrast")
    warps = sample_warps(32, 16, 0.3, state := dice(), config)
    assert not torch.equal(warps, torch.eye(3).expand(32, -1, -1))
    del state
    out = augment(img, 0.3, dice(5), config=config)
    is_same = (out == img).flatten(1).all(dim=1)
    assert 5 < is_same.sum() < 27
    assert ((out - img).abs() > 1e-3).flatten(1).any(dim=1).logical_or(is_same).all()


def test_half_precision_comes_back_as_float32() -> None:
    assert augment(noise(2, 3, 8, 8).bfloat16(), 0.5, dice()).dtype == torch.float32


def test_sampling_can_be_differentiated_twice() -> None:
    x = torch.rand(1, 2, 5, 5, dtype=torch.float64, generator=dice(), requires_grad=True)
    grid = torch.rand(1, 4, 4, 2, dtype=torch.float64, generator=dice(1)) * 3 - 1.5
    assert torch.autograd.gradcheck(lambda x: _GridSample.apply(x, grid), x)
    assert torch.autograd.gradgradcheck(lambda x: _GridSample.apply(x, grid).square(), x)


def test_a_gradient_penalty_goes_through_the_pipe() -> None:
    """For D(x) = |A x|^2 / 2 the penalty |A'A x|^2 has the gradient 2 A'A A'A x."""
    img = noise(4, 3, 8, 8).requires_grad_()
    config = AugmentConfig(brightness=0)  # the rest is linear in x

    def normal(x: Tensor, create_graph: bool = False) -> Tensor:
        value = augment(x, 0.9, dice(2), config=config).square().sum() / 2
        return torch.autograd.grad(value, x, create_graph=create_graph)[0]

    (grad,) = torch.autograd.grad(normal(img, create_graph=True).square().sum(), img)
    twice = normal(normal(img).detach().requires_grad_())
    torch.testing.assert_close(grad, 2 * twice, rtol=1e-3, atol=1e-4)


# ---- What steers p --------------------------------------------------------------------------------------------------


def test_p_follows_the_sign_of_real_logits() -> None:
    control = AdaController(target=0.6, speed_kimg=1)
    p = torch.tensor(0.3)
    assert control.update(p, torch.ones(10)).item() == pytest.approx(0.31)
    assert control.update(p, -torch.ones(10)).item() == pytest.approx(0.29)
    mixed = torch.tensor([5.0] * 8 + [-0.1] * 2)  # r_t = 0.6: right on target
    assert torch.equal(control.update(p, mixed), p)
    assert p.item() == pytest.approx(0.3), "what was given is not changed"


def test_p_crosses_its_range_at_the_papers_speed_and_stays_in_it() -> None:
    p, num = torch.tensor(0.0), 0
    while p < 0.8 - 1e-4:
        p = AdaController().update(p, torch.ones(1000))
        num += 1000
    assert num == 400_000  # 0.8 of 500 kimg
    for _ in range(3):
        p = AdaController().update(p, torch.ones(1000))
    assert p.item() == pytest.approx(0.8)
    assert AdaController().update(torch.tensor(0.0), -torch.ones(8)).item() == 0


def test_wrong_settings_are_said() -> None:
    with pytest.raises(InputError, match="hue must be a number from 0 up, got -1"):
        AugmentConfig(hue=-1)
    with pytest.raises(InputError, match="scale_std must be a number from 0 up, got nan"):
        AugmentConfig(scale_std=math.nan)
    for wrong in ({"target": 2.0}, {"speed_kimg": 0.0}, {"p_max": 1.5}):
        with pytest.raises(InputError, match="no such controller"):
            AdaController(**wrong)
