"""SeFa and GANSpace: the moves are what their definitions say, sorted, and bring the change that they promise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mien.edits.ganspace import ganspace
from mien.edits.sefa import principal_directions, sefa, style_weights
from mien.errors import InputError
from mien.latents import sample_w, sample_ws
from mien.nets.stylegan2 import Generator


@pytest.fixture(scope="module")
def G(make_G: Callable[..., Generator]) -> Generator:
    return make_G(z_dim=12, w_dim=12, num_layers=2, channel_max=16)


def test_every_layer_is_seen_with_its_row(G: Generator) -> None:
    synthesis = G.synthesis
    layers = [synthesis.b4.conv1, synthesis.b8.conv0, synthesis.b8.conv1, synthesis.b16.conv0, synthesis.b16.conv1]
    found = style_weights(G)
    assert [row for row, _ in found] == [0, 1, 2, 3, 4]
    for (_, weight), layer in zip(found, layers, strict=True):
        assert torch.equal(weight, layer.affine.weight)
    assert not any(module._forward_pre_hooks for module in synthesis.modules())


def test_sefa_changes_styles_most_and_in_order(G: Generator) -> None:
    vectors, values = sefa(G, [1, 2], 12)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(12), atol=1e-5, rtol=0)
    assert (values[:-1] >= values[1:]).all()
    weights = torch.cat([w / w.norm(dim=1, keepdim=True) for row, w in style_weights(G) if row in (1, 2)])
    torch.testing.assert_close((weights @ vectors.T).square().sum(0), values, rtol=1e-4, atol=1e-4)
    random = torch.nn.functional.normalize(torch.randn(200, 12), dim=1)
    assert (weights @ random.T).square().sum(0).max() <= values[0] * 1.0001


def test_ganspace_finds_the_axes_of_samples(G: Generator) -> None:
    vectors, values = ganspace(G, 12, num_samples=3000)
    w = sample_w(G, 3000)
    torch.testing.assert_close(((w - w.mean(0)) @ vectors.T).var(0), values, rtol=1e-3, atol=1e-6)
    assert (values[:-1] >= values[1:]).all()
    total = (w - w.mean(0)).square().sum() / 2999
    torch.testing.assert_close(values.sum(), total, rtol=1e-3, atol=0)


def test_one_is_one_deviation_of_w(G: Generator) -> None:
    vectors, _ = ganspace(G, 3, num_samples=3000)
    found = principal_directions(G, vectors, [0, 1], "ganspace")
    assert list(found) == ["ganspace0", "ganspace1", "ganspace2"]
    w = sample_w(G, 4000)
    for direction, vector in zip(found.values(), vectors, strict=True):
        assert direction.std == pytest.approx(float((w @ vector).std()), rel=1e-4)
        assert float(direction.vector.norm()) == pytest.approx(direction.std, rel=1e-4)
        assert float(direction.vector[direction.vector.abs().argmax()]) > 0
    moved = found["ganspace0"].apply(sample_ws(G, [1]), 2.0) - sample_ws(G, [1])
    torch.testing.assert_close(moved[0, 0], 2 * found["ganspace0"].vector, atol=1e-6, rtol=1e-4)
    assert not moved[0, 2:].any()


def test_wrong_wishes_are_refused(G: Generator) -> None:
    with pytest.raises(InputError, match="13 directions are not in a space of 12"):
        sefa(G, [0], 13)
    with pytest.raises(InputError, match=r"no style hangs on rows \[5\]"):
        sefa(G, [5], 2)
    with pytest.raises(InputError, match="too few"):
        ganspace(G, 5, num_samples=5)
