"""Finding directions where the truth is known: a generator whose pictures are linear in w."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mien.edits.find import Attribute, FindConfig, find_directions, layer_ranges, likeliest_moves, linear_model
from mien.edits.probe import Scores
from mien.errors import InputError
from mien.report import Step

DIM = 1 / 64  # so that no picture leaves [-1, 1]


class LinearFaces:
    """Row 0 of the code decides `turn`, row 2 `smile`; the rest is who the face is. Smiles come with age in its w."""

    z_dim, c_dim, w_dim, num_ws, img_resolution, img_channels = 8, 0, 8, 6, 4, 3
    init_kwargs: dict[str, Any] = {}  # noqa: RUF012
    w_avg = torch.zeros(8)

    def mapping(self, z: Tensor, c: Tensor | None = None, **kwargs: Any) -> Tensor:
        w = z.clone()
        w[:, 2] = 0.6 * z[:, 1] + 0.8 * z[:, 2]  # age goes with smile
        return w[:, None].expand(-1, self.num_ws, -1)

    def synthesis(self, ws: Tensor, **kwargs: Any) -> Tensor:
        parts = [ws[:, 0, :1], 0.5 * ws[:, 2, 1:2], ws.mean(1)[:, 2:3], ws.mean(1)[:, 3:]]
        return DIM * torch.cat(parts, dim=1)[:, None, None].expand(-1, 3, 4, -1)


def score(img: Tensor) -> Scores:
    img = img[:, 0, 0] / DIM
    attributes = {"turn": 10 * img[:, 0], "smile": img[:, 1], "age": 20 * img[:, 2]}
    return Scores(attributes, torch.nn.functional.normalize(torch.cat([img[:, 3:], img[:, :1] * 0 + 2], 1), dim=1))


FACTS = (
    Attribute("turn", "degrees"),
    Attribute("smile", "of a smile", ("age",)),
    Attribute("age", "years", ("smile",)),
)


def test_directions_are_calibrated_and_leave_the_others_alone() -> None:
    config = FindConfig(num_samples=2000, num_probes=16, ridge=1e-4)
    steps: list[Step] = []
    G = LinearFaces()
    found = find_directions(G, score, FACTS, config=config, network="x", on_step=steps.append)
    assert found.network == "x"
    assert found["turn"].std == pytest.approx(0.7 * 10, rel=0.06)  # over samples at psi 0.7
    assert found["smile"].std == pytest.approx(0.7 * 0.5, rel=0.06)
    assert 0 in found["turn"].layers
    ws = torch.zeros(1, 6, 8)
    for name, strength in (("turn", 1.0), ("smile", -1.5)):
        before, after = (score(G.synthesis(x)).attributes for x in (ws, found.apply(ws, {name: strength})))
        change = {k: float(after[k] - before[k]) / found[k].std for k in after}
        assert change.pop(name) == pytest.approx(strength, rel=0.1)
        assert all(abs(v) < 0.25 for v in change.values()), change
    assert steps[-1] == Step("calibrate", 3, 3)
    assert found["smile"].safe_range[0] <= -2
    assert found["smile"].safe_range[1] >= 2


def test_codes_may_take_the_place_of_samples() -> None:
    ws = torch.randn(1500, 1, 8, generator=torch.Generator().manual_seed(3)).repeat(1, 6, 1)
    ws[:, :, 0] *= 3
    config = FindConfig(num_probes=16, ridge=1e-4)
    found = find_directions(LinearFaces(), score, FACTS, codes=ws, config=config)
    assert found["turn"].std == pytest.approx(0.7 * 10, rel=0.06)  # over samples, not over the codes
    assert found.provenance["codes"] == "encoded"


def test_linear_model_recovers_slopes_and_what_they_explain() -> None:
    gen = torch.Generator().manual_seed(0)
    w = torch.randn(5000, 4, generator=gen)
    true = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [3.0, 0.0]])
    noise = torch.randn(5000, 2, generator=gen)
    slopes, explained = linear_model(w, w @ true + noise, 1e-6)
    torch.testing.assert_close(slopes.float(), true, atol=0.06, rtol=0)
    assert float(explained[0]) == pytest.approx(10 / 11, abs=0.02)
    assert float(explained[1]) == pytest.approx(4 / 5, abs=0.02)


def test_moves_raise_their_own_attribute_only() -> None:
    slopes = torch.randn(5, 3, dtype=torch.float64)
    a = torch.randn(5, 5, dtype=torch.float64)
    moves = likeliest_moves(slopes, a @ a.T + torch.eye(5))
    torch.testing.assert_close(slopes.T @ moves, torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("num_ws", [6, 10, 18])
def test_layer_ranges_are_ranges_of_the_generators_rows(num_ws: int) -> None:
    for rows in layer_ranges(num_ws):
        assert rows == tuple(range(rows[0], rows[-1] + 1))
        assert rows[-1] < num_ws


def test_what_nothing_measures_is_refused() -> None:
    with pytest.raises(InputError, match="nothing measures beard"):
        find_directions(LinearFaces(), score, [Attribute("beard", "cm")], config=FindConfig(num_samples=70))
    with pytest.raises(InputError, match="20 codes are too few for 32 probes"):
        find_directions(LinearFaces(), score, FACTS, config=FindConfig(num_samples=20))
    with pytest.raises(InputError, match="num_samples"):
        FindConfig(num_samples=1)
