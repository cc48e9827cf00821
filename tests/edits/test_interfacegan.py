"""Boundaries in W, found where the truth is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mien.edits.interfacegan import boundary, classes_of, conditional, interfacegan
from mien.errors import InputError
from mien.nets.stylegan2 import Generator


def codes(num: int = 600) -> Tensor:
    return torch.randn(num, 6, generator=torch.Generator().manual_seed(0))


def test_the_boundary_is_where_the_labels_change() -> None:
    w = codes()
    true = torch.nn.functional.normalize(torch.tensor([2.0, -1, 0, 0, 0, 0]), dim=0)
    found = boundary(w, (w @ true > 0).float())
    assert float(found.normal @ true) > 0.99
    assert found.accuracy > 0.95
    assert float(found.normal.norm()) == pytest.approx(1, abs=1e-5)
    assert found.gap == pytest.approx(2 * math.sqrt(2 / math.pi), rel=0.1)  # means of half normal distributions
    assert found.num_without + found.num_with == 600
    chance = boundary(w, torch.randint(0, 2, (600,), generator=torch.Generator().manual_seed(1)).float())
    assert 0.35 < chance.accuracy < 0.65


def test_the_boundary_does_not_hang_on_scale_or_order() -> None:
    w = codes(100)
    values = (w[:, 0] + w[:, 1] > 0.5).float()
    found, order = boundary(w, values, softness=[0.1]), torch.randperm(100, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        boundary(w[order], values[order], softness=[0.1]).normal, found.normal, atol=1e-3, rtol=0
    )
    torch.testing.assert_close(boundary(100 * w + 7, values, softness=[0.1]).normal, found.normal, atol=1e-3, rtol=0)


def test_scores_are_parted_at_their_ends_and_gaps_have_no_label() -> None:
    values = torch.arange(100.0)
    without, with_ = classes_of(values, 0.1)
    assert sorted(without.tolist()) == list(range(10)) and sorted(with_.tolist()) == list(range(90, 100))
    values[95] = math.nan
    assert 95 not in classes_of(values, 0.1)[1]
    without, with_ = classes_of(torch.tensor([1.0, math.nan, 1.0]), 0.1)  # one class only
    assert len(with_) == 0 and len(without) == 2


def test_a_conditional_normal_leaves_the_others_alone() -> None:
    a, b, c = torch.randn(3, 6, generator=torch.Generator().manual_seed(3)).unbind()
    found = conditional(a, [b, c])
    assert abs(float(found @ b)) < 1e-5 and abs(float(found @ c)) < 1e-5
    assert float(found.norm()) == pytest.approx(1, abs=1e-5) and float(found @ a) > 0
    torch.testing.assert_close(conditional(a, []), a / a.norm())
    with pytest.raises(InputError, match="nothing is left"):
        conditional(a, [2 * a])


def test_strength_two_leads_from_those_without_to_those_with() -> None:
    torch.manual_seed(0)
    G = Generator(6, 0, 6, 16, 3, dict(num_layers=1), channel_base=64, channel_max=4).eval()
    w = codes()
    values = {"hat": (w[:, 0] > 0).float(), "age": w[:, 0] + w[:, 1]}
    direction, facts = interfacegan(G, w, values, "hat", keep=["age"], layers=[1, 2])
    assert direction.layers == (1, 2) and direction.unit == "half of the way to hat"
    assert facts["orthogonal_to"] == ["age"] and facts["cosine_to_boundary"] < 0.9
    age = boundary(w, values["age"]).normal
    assert abs(float(direction.vector @ age)) < 1e-4 * float(direction.vector.norm())
    step = w[values["hat"] == 1].mean(0) - w[values["hat"] == 0].mean(0)
    unit = direction.vector / direction.vector.norm()
    assert float(2 * direction.vector.norm()) == pytest.approx(float(step @ unit), rel=1e-3)


def test_what_cannot_be_parted_is_refused() -> None:
    w = codes(20)
    with pytest.raises(InputError, match="16 faces without and 4 with it are too few"):
        boundary(w, torch.tensor([1.0] * 4 + [0.0] * 16))
    with pytest.raises(InputError, match="nothing tells 'hat'"):
        interfacegan(None, w, {"age": w[:, 0]}, "hat")  # type: ignore[arg-type]
