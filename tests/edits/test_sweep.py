"""Sweeps over blends: what the scores mean at both ends, the front, and who is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mien.edits.sweep import StyleScale, SweepConfig, identity_kept, pareto_front, style_statistics, sweep
from mien.errors import InputError
from mien.latents import sample_ws, synthesize
from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator
from mien.report import Step


@pytest.fixture(scope="module")
def A(make_G: Callable[..., Generator]) -> Any:
    return make_G(z_dim=6, num_layers=2)


@pytest.fixture(scope="module")
def B(A: Any) -> Any:
    torch.manual_seed(1)
    G = copy.deepcopy(A)
    for tensor in G.synthesis.parameters():
        tensor.add_(0.3 * torch.rand_like(tensor))
    return G


@pytest.fixture(scope="module")
def face_net(make_face_net: Callable[..., FaceNet]) -> FaceNet:
    return make_face_net(2)


def test_statistics_are_means_and_deviations(face_net: FaceNet) -> None:
    img = torch.randn(3, 3, 16, 16).clamp(-1, 1)
    colours, *maps = style_statistics(face_net, img)
    torch.testing.assert_close(colours[1, 2], img[1, 2].mean())
    torch.testing.assert_close(colours[1, 5], img[1, 2].square().mean().sub(img[1, 2].mean() ** 2).sqrt())
    assert [s.shape for s in maps] == [(3, 8)] * len(face_net.maps(img))
    shuffled = img.flatten(2)[:, :, torch.randperm(256)].view_as(img)
    torch.testing.assert_close(style_statistics(face_net, shuffled)[0], colours)  # colours have no place


def test_the_scale_goes_from_one_style_to_the_other() -> None:
    torch.manual_seed(0)
    base = [torch.randn(50, 4)]
    other = [base[0] + torch.tensor([3.0, 0, 0, 0])]
    scale = StyleScale(base, other)
    assert scale.reached(base) == 0 and scale.reached(other) == 1
    assert scale.reached([base[0] + torch.tensor([1.5, 0, 0, 0])]) == pytest.approx(0.5)
    assert scale.reached([base[0] - torch.tensor([3.0, 0, 0, 0])]) == pytest.approx(-1)
    assert StyleScale(base, base).reached(base) == 1
    stretched = StyleScale([10 * base[0]], [10 * other[0]])  # in units of the pictures' own spread
    assert stretched.whole == pytest.approx(scale.whole, rel=1e-4)


def test_the_front_is_what_none_beats() -> None:
    scores = [(0.9, 0.1), (0.5, 0.6), (0.5, 0.5), (0.4, 0.6), (0.1, 0.9), (0.1, 0.9), (0.05, 0.05)]
    assert pareto_front(scores) == [True, True, False, False, True, True, False]
    assert pareto_front([]) == []


def test_a_sweep_tries_everything_and_scores_it(A: Any, B: Any, face_net: FaceNet) -> None:
    config = SweepConfig(swaps_px=(8, 16), widths=(0, 1), seeds=(1, 2, 3))
    steps: list[Step] = []
    found = sweep(A, {"early": B, "same": A}, face_net, config, on_step=steps.append)
    ws = sample_ws(A, [1, 2, 3], truncation_psi=0.7)
    assert torch.equal(found.base, synthesize(A, ws))
    tried = [(t.network, str(t.schedule)) for t in found.trials]
    assert tried == [(n, s) for n in ("early", "same") for s in ("above:8", "above:8:1", "above:16", "above:16:1")]
    early, same = found.others
    assert torch.equal(early.img, synthesize(B, ws)) and early.style == pytest.approx(1)
    assert (same.identity, same.style) == (pytest.approx(1), 1)
    assert all(torch.equal(t.img, found.base) for t in found.trials if t.network == "same")
    for trial in found.trials:
        assert trial.identity == pytest.approx(identity_kept(face_net, trial.img, found.base))
    front = pareto_front([(t.identity, t.style) for t in found.trials])
    assert [t.is_on_front for t in found.trials] == front and any(front)
    assert [(step.done, step.total) for step in steps] == [(i, 8) for i in range(1, 9)]
    assert set(steps[0].scalars) == {"identity", "style"}


def test_swaps_at_the_ends_are_the_networks_themselves(A: Any, B: Any, face_net: FaceNet) -> None:
    ends = SweepConfig(swaps_px=(4, 1000), widths=(0,), seeds=(1, 2))
    whole, nothing = sweep(A, {"B": B}, face_net, ends).trials
    assert whole.style == pytest.approx(1) and nothing.style == 0 and nothing.identity == pytest.approx(1)
    below = SweepConfig(swaps_px=(4, 1000), widths=(0,), seeds=(1, 2), is_below=True)
    nothing, whole = sweep(A, {"B": B}, face_net, below).trials
    assert whole.style == pytest.approx(1) and nothing.style == 0


def test_by_default_every_octave_is_tried() -> None:
    schedules = SweepConfig(widths=(0, 2)).schedules(64)
    assert [str(s) for s in schedules] == [f"above:{px}{width}" for px in (8, 16, 32, 64) for width in ("", ":2")]


def test_wrong_use(A: Any, face_net: FaceNet) -> None:
    with pytest.raises(InputError, match="a swap and a width at least"):
        SweepConfig(swaps_px=())
    with pytest.raises(InputError, match="two seeds at least"):
        SweepConfig(seeds=(1,))
    with pytest.raises(InputError, match="a ramp needs a resolution above 0"):
        SweepConfig(swaps_px=(0,)).schedules(64)
    with pytest.raises(InputError, match="nothing to blend with"):
        sweep(A, {}, face_net)
    torch.manual_seed(9)
    stranger = Generator(6, 0, 8, 16, 3, mapping_kwargs=dict(num_layers=2), channel_base=256, channel_max=8)
    with pytest.raises(InputError, match="not related"):
        sweep(A, {"stranger": stranger}, face_net)
