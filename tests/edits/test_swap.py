"""Face swap on tiny random networks: nothing outside of the mask changes, codes follow the loss, batches never mix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mien.edits.swap import Moves, SwapConfig, SwapMeans, attribute_moves, joined, random_view, swap
from mien.errors import InputError
from mien.inversion.code import Inversion, load_inversion, save_inversion
from mien.inversion.personal import Changes, FeatureOffset, feature_layers, personal, tunable
from mien.latents import latent_stats, sample_ws, synthesize
from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator

SIDE = 32
QUICK = SwapConfig(num_steps=4, num_views=1, num_samples=32, tune_steps=0)
FROZEN = replace(QUICK, num_steps=1, lr=1e-9, row_lr=1e-9)  # the first move alone


@pytest.fixture(scope="module")
def G(make_G: Callable[..., Generator]) -> Generator:
    return make_G(img_resolution=SIDE)


@pytest.fixture(scope="module")
def means(G: Generator, make_face_net: Callable[..., FaceNet]) -> SwapMeans:
    net = make_face_net(1)
    return SwapMeans(net, attribute_moves(G, net, QUICK), latent_stats(G, num=200))


@pytest.fixture(scope="module")
def codes(G: Generator) -> list[Inversion]:
    return [Inversion(ws=ws) for ws in sample_ws(G, [1, 2, 3, 4])]


def pictures(G: Generator, codes: list[Inversion]) -> Tensor:
    return synthesize(G, torch.stack([code.ws for code in codes])).clamp(-1, 1)


def test_outside_of_the_mask_the_target_is_itself(G: Generator, means: SwapMeans, codes: list[Inversion]) -> None:
    img = pictures(G, codes)
    for config in (QUICK, replace(QUICK, tune_steps=2)):
        (one,) = swap(G, codes[:1], img[:1], codes[1:2], img[1:2], means=means, config=config)
        outside = (one.within == 0).expand_as(one.img)
        assert 0.3 < float(outside.float().mean()) < 0.9
        assert torch.equal(one.img[outside], img[1:2][outside])
        assert not torch.allclose(one.img, img[1:2], atol=1e-3)


def test_a_batch_gives_what_one_by_one_gives(G: Generator, means: SwapMeans, codes: list[Inversion]) -> None:
    """To 1e-3, an eighth of a grey level: sums over other shapes round otherwise, and Adam divides by small numbers."""
    img = pictures(G, codes)
    together = swap(G, codes[:1], img[:1], codes[1:], img[1:], means=means, config=QUICK)
    for i, one in enumerate(together):
        (alone,) = swap(G, codes[:1], img[:1], codes[1 + i : 2 + i], img[1 + i : 2 + i], means=means, config=QUICK)
        torch.testing.assert_close(one.img, alone.img, atol=1e-3, rtol=0)
        torch.testing.assert_close(one.code.ws, alone.code.ws, atol=1e-3, rtol=0)


def test_small_batches_keep_the_order_of_targets(G: Generator, means: SwapMeans, codes: list[Inversion]) -> None:
    img = pictures(G, codes)
    whole, parts = (
        swap(G, codes[:2], img[:2], codes[1:], img[1:], means=means, config=replace(QUICK, batch_size=size))
        for size in (4, 1)
    )
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a.img, b.img, atol=1e-3, rtol=0)


def test_the_descent_lowers_what_it_weighs(G: Generator, means: SwapMeans, codes: list[Inversion]) -> None:
    """Every term alone falls, so gradients reach the code through the seam and every reader."""
    img = pictures(G, codes)
    off = dict.fromkeys(("identity", "pose", "expression", "colour", "border", "near", "prior"), 0.0)
    for name in ("identity", "pose", "expression", "colour", "border", "prior"):
        weights = {f"{key}_weight": float(key == name) for key in off}
        config = replace(QUICK, **weights, num_views=0, num_steps=12, lr=0.2, row_lr=0.2, reach=1e-3)
        ends = [
            swap(G, codes[:1], img[:1], codes[1:2], img[1:2], means=means, config=c)[0].terms[name]
            for c in (replace(FROZEN, **weights, num_views=0, reach=1e-3), config)
        ]
        assert ends[1] < ends[0], name


def test_a_person_on_their_own_photo_begins_as_that_photo(
    G: Generator, means: SwapMeans, codes: list[Inversion]
) -> None:
    img = synthesize(G, codes[0].ws[None])
    (one,) = swap(G, codes[:1], img, codes[:1], img, means=means, config=FROZEN)
    torch.testing.assert_close(one.img, img, atol=1e-3, rtol=0)


def test_several_sources_are_averaged(G: Generator, means: SwapMeans, codes: list[Inversion]) -> None:
    """The mean direction of the identities is steered by; a photo twice is that photo."""
    img, asked = pictures(G, codes), []

    def describe(view: Tensor) -> Tensor:
        identity = means.face_net(view).identity
        asked.append(identity.detach())
        return identity

    steered = replace(means, describe=describe)
    once = swap(G, codes[:1], img[:1], codes[2:3], img[2:3], means=means, config=QUICK)[0]
    twice = swap(G, [codes[0]] * 2, img[[0, 0]], codes[2:3], img[2:3], means=steered, config=QUICK)[0]
    torch.testing.assert_close(once.img, twice.img, atol=5e-3, rtol=0)  # Adam divides rounding by itself
    assert asked[0].shape == (2, 8)
    both = swap(G, codes[:2], img[:2], codes[2:3], img[2:3], means=means, config=QUICK)[0]
    mean = torch.nn.functional.normalize(means.face_net(img[:2]).identity.mean(0), dim=0)
    seen = [both.img, *(random_view(both.img, (0 * 1_000_003 + QUICK.num_steps) * 101 + v) for v in range(1))]
    far = torch.stack([1 - means.face_net(view).identity[0] @ mean for view in seen]).mean()
    assert both.terms["identity"] == pytest.approx(float(far), abs=1e-5)


def test_each_target_begins_at_the_source_whose_pose_is_nearest(
    G: Generator, means: SwapMeans, codes: list[Inversion]
) -> None:
    img = pictures(G, codes)
    one = swap(G, codes[:3], img[:3], codes[2:3], img[2:3], means=means, config=FROZEN)[0]
    torch.testing.assert_close(one.code.ws, codes[2].ws, atol=1e-3, rtol=0)  # its own photo is among the sources


def test_rows_that_are_not_the_sources_begin_as_the_targets(
    G: Generator, means: SwapMeans, codes: list[Inversion]
) -> None:
    img = pictures(G, codes)
    config = replace(FROZEN, reach=1e-9, first=4, last=12)
    ws = swap(G, codes[:1], img[:1], codes[1:2], img[1:2], means=means, config=config)[0].code.ws
    is_source = [bool(torch.allclose(ws[i], codes[0].ws[i], atol=1e-5)) for i in range(G.num_ws)]
    assert is_source == [False, False, True, True, True, True, False, False]
    assert torch.allclose(ws[0], codes[1].ws[0], atol=1e-5)


def test_the_code_renders_as_the_face_and_is_kept(
    G: Generator, means: SwapMeans, codes: list[Inversion], tmp_path: object
) -> None:
    """Own weights of the source and those of the surroundings together are the code's; a feature map is left behind."""
    layer, shape = next(iter(feature_layers(G).items()))
    feature = FeatureOffset(layer, torch.ones(shape, dtype=torch.int8), torch.ones(shape[0], 1, 1))
    gen = torch.Generator().manual_seed(3)
    factors = {
        name: (0.05 * torch.randn(len(w), 2, generator=gen), 0.05 * torch.randn(2, w[0].numel(), generator=gen))
        for name, w in tunable(G).items()
    }
    source = replace(codes[0], changes=Changes(factors, feature))
    img = pictures(G, codes)
    (one,) = swap(G, [source], img[:1], codes[1:2], img[1:2], means=means, config=replace(QUICK, tune_steps=3))
    assert one.code.changes.feature is None
    path = tmp_path / "anna.mien"  # type: ignore[operator]
    save_inversion(one.code, path)
    torch.testing.assert_close(load_inversion(path).render(G), one.code.render(G))
    plain = personal(G, Changes(factors)).synthesis(one.code.ws[None], noise_mode="const")
    assert not torch.allclose(one.code.render(G), plain, atol=1e-4)


def test_joined_changes_add_up() -> None:
    a, b = (Changes({"x": (torch.randn(3, 2), torch.randn(2, 5)), name: (torch.ones(1, 1),) * 2}) for name in "yz")
    both = joined(a, b)
    up, down = both.factors["x"]
    torch.testing.assert_close(up @ down, sum(c.factors["x"][0] @ c.factors["x"][1] for c in (a, b)))
    assert set(both.factors) == {"x", "y", "z"}


def test_moves_are_those_of_a_linear_world(means: SwapMeans) -> None:
    moves = means.moves
    assert moves.vectors.shape == (35, 8) and moves.units.shape == (35,)
    assert isinstance(moves, Moves) and bool((moves.units > 0).all())


def test_views_are_alike_for_all_and_differ_by_seed() -> None:
    img = torch.rand(1, 3, SIDE, SIDE)
    pair = random_view(img.expand(2, -1, -1, -1), 5)
    assert torch.equal(pair[0], pair[1]) and torch.equal(pair[:1], random_view(img, 5))
    assert not torch.equal(random_view(img, 5), random_view(img, 6))
    assert math.isfinite(float(pair.sum()))


def test_wrong_use(G: Generator, means: SwapMeans, codes: list[Inversion]) -> None:
    img = pictures(G, codes)
    with pytest.raises(InputError, match=r"target_img must be \[N, 3, 32, 32\]"):
        swap(G, codes[:1], img[:1], codes[1:2], img[1:2, :, :16], means=means, config=QUICK)
    with pytest.raises(InputError, match="a code is needed for every picture"):
        swap(G, codes[:2], img[:1], codes[1:2], img[1:2], means=means, config=QUICK)
    with pytest.raises(InputError, match="rows 9 to 3"):
        SwapConfig(first=9, last=3)
    with pytest.raises(InputError, match="the face ends between"):
        SwapConfig(inner=1.2, outer=1.0)
    with pytest.raises(InputError, match="samples go from 2"):
        SwapConfig(num_samples=1)
