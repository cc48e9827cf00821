"""Blends by hand arithmetic, for every family, and everybody whom they refuse."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mien.edits.blend import blend, parts, relatedness, resolutions
from mien.edits.schedule import KINDS, Listed, Ramp, Schedule, parse_schedule
from mien.errors import InputError
from mien.latents import sample_ws, synthesize
from mien.nets import stylegan1, stylegan2, stylegan3
from mien.weights.load import load_generator, save_generator

FAMILIES: dict[str, Any] = {
    "stylegan1": stylegan1.Generator,
    "stylegan2": stylegan2.Generator,
    "stylegan3": stylegan3.Generator,
}
FIXED = ("freqs", "phases", "transform", "_filter")


def tiny(family: str, seed: int = 0, px: int = 16, **more: Any) -> Any:
    torch.manual_seed(seed)
    kwargs = dict(channel_base=256, channel_max=8) | more
    net = FAMILIES[family](6, 0, 8, px, 3, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=kwargs)
    return net.eval().requires_grad_(False)


def tuned(G: Any, seed: int = 1, amount: float = 0.3) -> Any:
    """A copy whose every learnt tensor was moved a little, Fourier features and filters were not."""
    torch.manual_seed(seed)
    other = copy.deepcopy(G)
    for name, tensor in other.state_dict().items():
        if not name.endswith(FIXED):
            tensor.add_(amount * torch.rand_like(tensor))
    return other


def state(G: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in G.state_dict().items()}


def even(weight: float, mapping: float = 0.0) -> Schedule:
    return Schedule(Listed((weight,)), mapping=mapping)


@pytest.fixture(params=FAMILIES)
def A(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_nothing_of_the_synthesis_is_forgotten(family: str, architecture: str) -> None:
    G = tiny(family, **(dict(architecture=architecture) if family == "stylegan2" else {}))
    held = {id(tensor) for tensor in G.synthesis.state_dict(keep_vars=True).values()}
    kept = {id(t) for name, t in G.synthesis.state_dict(keep_vars=True).items() if name.endswith(FIXED)}
    found = [id(part.tensor) for part in parts(G)]
    assert len(found) == len(set(found)) and set(found) == held - kept
    assert {part.layer_idx for part in parts(G)} == set(range(len(resolutions(G))))
    assert {part.kind for part in parts(G)} == set(KINDS) - ({"noise"} if family == "stylegan3" else set())


def test_every_layer_has_its_resolution() -> None:
    assert resolutions(tiny("stylegan1")) == [4, 4, 8, 8, 16, 16]
    assert resolutions(tiny("stylegan2")) == [4, 8, 8, 16, 16, 16]
    found = resolutions(tiny("stylegan3", px=64))
    assert len(found) == 15 and found[0] == pytest.approx(4) and found[-1] == found[12] == pytest.approx(64)
    assert found == sorted(found)


def test_weight_0_is_the_base_and_weight_1_the_other_to_the_bit(A: Any) -> None:
    B = tuned(A)
    before = state(A), state(B)
    nothing, everything = blend(A, [(B, even(0))]), blend(A, [(B, even(1, mapping=1))])
    for G, expected in ((nothing, A), (everything, B)):
        assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in G.state_dict().items())
        ws = sample_ws(expected, [1, 2])
        assert torch.equal(synthesize(G, ws), synthesize(expected, ws))
    after = state(A), state(B)
    assert all(torch.equal(x[name], y[name]) for x, y in zip(before, after, strict=True) for name in x)


def test_a_blend_is_linear_and_keeps_the_mapping(A: Any) -> None:
    B = tuned(A)
    G = blend(A, [(B, even(0.3))])
    for name, tensor in G.state_dict().items():
        a, b = A.state_dict()[name].double(), B.state_dict()[name].double()
        expected = a if name.startswith("mapping") or name.endswith(FIXED) else 0.7 * a + 0.3 * b
        assert torch.equal(tensor, expected.float()), name


def test_a_blended_mapping(A: Any) -> None:
    B = tuned(A)
    G = blend(A, [(B, even(0, mapping=0.25))])
    torch.testing.assert_close(G.w_avg, 0.75 * A.w_avg + 0.25 * B.w_avg)
    assert torch.equal(G.synthesis(sample_ws(A, [1]), noise_mode="const"), synthesize(A, sample_ws(A, [1])))


def test_a_hard_swap_takes_low_layers_from_one_and_high_ones_from_the_other(A: Any) -> None:
    B = tuned(A)
    G = blend(A, [(B, Schedule(Ramp(8)))])
    is_high = [res >= 8 for res in resolutions(A)]
    assert any(is_high) and not all(is_high)
    for own, a, b in zip(parts(G), parts(A), parts(B), strict=True):
        assert torch.equal(own.tensor, (b if is_high[own.layer_idx] else a).tensor), own[:3]


def test_the_4x4_block_of_stylegan2_is_swapped_too() -> None:
    A = tiny("stylegan2")
    B = tuned(A)
    G = blend(A, [(B, Schedule(Ramp(8, is_below=True)))]).state_dict()
    low = [name for name in G if name.startswith("synthesis.b4.") and not name.endswith(FIXED)]
    assert {"synthesis.b4.const", "synthesis.b4.conv1.weight", "synthesis.b4.torgb.weight"} <= set(low)
    assert "synthesis.b4.conv1.noise_const" in low  # a buffer
    assert all(torch.equal(G[name], B.state_dict()[name]) for name in low)
    high = [name for name in G if name.startswith(("synthesis.b8.", "synthesis.b16."))]
    assert all(torch.equal(G[name], A.state_dict()[name]) for name in high)


def test_layers_of_two_digits_have_weights_of_their_own() -> None:
    A = tiny("stylegan2", px=256, channel_max=2)
    B = tuned(A)
    weights = tuple(i / 20 for i in range(14))
    G = blend(A, [(B, Schedule(Listed(weights)))])
    for i, layer in enumerate(layer for block in G.synthesis.blocks() for layer in block.layers()):
        a, b = ([one for block in H.synthesis.blocks() for one in block.layers()][i].weight.double() for H in (A, B))
        torch.testing.assert_close(layer.weight, (a + weights[i] * (b - a)).float())
    a, b = (H.synthesis.b256.torgb.weight.double() for H in (A, B))
    torch.testing.assert_close(G.synthesis.b256.torgb.weight, (a + 13 / 20 * (b - a)).float())
    a, b = (H.synthesis.b8.torgb.weight.double() for H in (A, B))
    torch.testing.assert_close(G.synthesis.b8.torgb.weight, (a + 2 / 20 * (b - a)).float())  # as its block's last


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_schedule_of_its_own(A: Any, kind: str) -> None:
    B = tuned(A)
    G = blend(A, [(B, Schedule(Listed((0.0,)), {kind: Listed((1.0,))}))])
    for own, a, b in zip(parts(G), parts(A), parts(B), strict=True):
        assert torch.equal(own.tensor, (b if own.kind == kind else a).tensor), own[:3]


def test_three_generators(A: Any) -> None:
    B, C = tuned(A, 1), tuned(A, 2)
    G = blend(A, [(B, even(0.5)), (C, Schedule(Ramp(16, is_below=True), {k: Listed((0.25,)) for k in KINDS}))])
    for own, a, b, c in zip(parts(G), parts(A), parts(B), parts(C), strict=True):
        expected = 0.25 * a.tensor.double() + 0.5 * b.tensor.double() + 0.25 * c.tensor.double()
        torch.testing.assert_close(own.tensor, expected.float())
    with pytest.raises(InputError, match=r"the weights of layer 0 \(conv\) add up to 1\.2"):
        blend(A, [(B, even(0.5)), (C, even(0.7))])
    with pytest.raises(InputError, match=r"the weights of the mapping add up to 1\.5"):
        blend(A, [(B, even(0, mapping=0.5)), (C, even(0, mapping=1))])


def test_a_blend_is_an_ordinary_generator(A: Any, tmp_path: Path) -> None:
    G = blend(A, [(tuned(A), Schedule(Ramp(8, 1.0)))])
    save_generator(G, tmp_path / "G.safetensors")
    again = load_generator(tmp_path / "G.safetensors")
    ws = sample_ws(G, [3])
    assert torch.equal(synthesize(again, ws), synthesize(G, ws))
    assert not any(parameter.requires_grad for parameter in G.parameters())
    G.requires_grad_(True)
    G.synthesis(ws, noise_mode="const").sum().backward()
    assert all(parameter.grad is not None for parameter in G.synthesis.parameters())


def test_stylegan3_goes_the_whole_way(tmp_path: Path) -> None:
    """The 15 numbers: new = cartoon * blend[i] + faces * (1 - blend[i]), magnitudes with the weights."""
    A = tiny("stylegan3")
    B = tuned(A)
    schedule = parse_schedule("cartoon-bot")
    assert isinstance(schedule.curve, Listed) and len(schedule.curve.weights) == len(resolutions(A)) == 15
    G = blend(A, [(B, schedule)])
    for t, own, a, b in zip(schedule.curve.weights, *(H.synthesis.layers() for H in (G, A, B)), strict=True):
        for name in ("weight", "bias", "magnitude_ema", "affine.weight", "affine.bias"):
            mine, faces, cartoon = (layer.state_dict()[name].double() for layer in (own, a, b))
            assert torch.equal(mine.float(), (cartoon * t + faces * (1 - t)).float()), name
    assert torch.equal(G.synthesis.input.freqs, A.synthesis.input.freqs)
    assert torch.equal(G.synthesis.input.phases, A.synthesis.input.phases)
    ws = sample_ws(A, range(1, 5), truncation_psi=0.7)
    faces, toons, blends = (synthesize(H, ws) for H in (A, B, G))
    assert blends.isfinite().all() and not torch.equal(blends, faces)
    assert (blends - toons).abs().mean() < (faces - toons).abs().mean()


def test_layers_are_found_by_their_place_and_not_by_their_names() -> None:
    A = tiny("stylegan3")
    B = tuned(tiny("stylegan3", margin_size=8))
    assert A.synthesis.layer_names != B.synthesis.layer_names
    G = blend(A, [(B, even(1))])
    for own, other in zip(G.synthesis.layers(), B.synthesis.layers(), strict=True):
        assert torch.equal(own.weight, other.weight)


def test_relatives_are_told_from_strangers(A: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert relatedness(A, A).cosine == pytest.approx(1)
    near = relatedness(A, tuned(A, amount=0.3))
    assert 0.8 < near.cosine < 1
    stranger = tiny(type(A).__module__.rpartition(".")[2], seed=5)
    assert abs(relatedness(A, stranger).cosine) < 0.15
    with caplog.at_level(logging.WARNING):
        blend(A, [(tuned(A, amount=0.3), even(0.5))])
        assert not caplog.text
        blend(A, [(tuned(A, amount=2.5), even(0.5))])
        assert "the generators are far apart" in caplog.text
    with pytest.raises(InputError, match="the generators are not related") as caught:
        blend(A, [(stranger, even(0.5))])
    assert "fine-tuned" in caught.value.hint


def test_the_bound_is_the_callers() -> None:
    A, B = tiny("stylegan2"), tiny("stylegan2", seed=5)
    assert blend(A, [(B, even(0.5))], min_cosine=-1).img_resolution == 16
    with pytest.raises(InputError, match=r"not 0.999 or more"):
        blend(A, [(tuned(A), even(0.5))], min_cosine=0.999)


def test_other_fourier_features_are_refused() -> None:
    A = tiny("stylegan3")
    B = copy.deepcopy(A)
    B.synthesis.input.phases.mul_(-1)
    with pytest.raises(InputError, match="their Fourier features differ"):
        blend(A, [(B, even(0.5))], min_cosine=-1)


def test_generators_that_do_not_fit() -> None:
    A = tiny("stylegan2")
    for other, message in (
        (tiny("stylegan3"), "cannot blend a StyleGAN2 with a StyleGAN3"),
        (tiny("stylegan1"), "cannot blend a StyleGAN2 with a StyleGAN$"),
        (tiny("stylegan2", px=32), "cannot blend 16 px with 32 px"),
        (tiny("stylegan2", architecture="orig"), "generators of different layers"),
        (tiny("stylegan2", channel_max=4), r"different widths: const of layer 0 is \[8, 4, 4\] and \[4, 4, 4\]"),
        (torch.nn.Linear(1, 1), "cannot blend a Linear"),
    ):
        with pytest.raises(InputError, match=message):
            blend(A, [(other, even(0.5))])


def test_mappings_that_do_not_fit() -> None:
    A = tiny("stylegan2")
    B = stylegan2.Generator(6, 0, 8, 16, 3, mapping_kwargs=dict(num_layers=1), **A.init_kwargs["synthesis_kwargs"])
    B.synthesis.load_state_dict(A.synthesis.state_dict())
    assert torch.equal(blend(A, [(B, even(0.5))]).w_avg, A.w_avg)
    with pytest.raises(InputError, match=r"mappings that are built differently: fc"):
        blend(A, [(B, even(0.5, mapping=1))])
