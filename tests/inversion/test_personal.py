"""What one person adds to a generator: it is the sum that it says, shares the rest, and stays small at 1024 px."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mien.errors import InputError
from mien.inversion.code import Inversion, save_inversion
from mien.inversion.personal import Changes, FeatureOffset, feature_layers, personal, quantised, tunable
from mien.inversion.tune import TuneConfig
from mien.latents import sample_ws, synthesize
from mien.nets.stylegan2 import Generator


def some_changes(G: Generator) -> Changes:
    torch.manual_seed(2)
    factors = {
        name: ((torch.randn(len(w), 2) / 4).half(), (torch.randn(2, w[0].numel()) / 4).half())
        for name, w in tunable(G).items()
    }
    return Changes(factors, quantised("b8", torch.randn(feature_layers(G)["b8"])))


def test_weights_are_the_sum_and_everything_else_is_shared(small_G: Generator) -> None:
    changes = some_changes(small_G)
    own = personal(small_G, changes)
    before, after = small_G.state_dict(), own.state_dict()
    for name, weight in before.items():
        short = name.removeprefix("synthesis.")
        if short in changes.factors:
            up, down = (f.float() for f in changes.factors[short])
            torch.testing.assert_close(after[name], weight + (up @ down).view_as(weight))
        else:
            assert after[name].data_ptr() == weight.data_ptr(), name
    assert "synthesis.b16.torgb.weight" in before and "b16.torgb.weight" in changes.factors


def test_the_given_generator_stays_as_it_is(small_G: Generator) -> None:
    ws = sample_ws(small_G, [1])
    before = synthesize(small_G, ws)
    own = personal(small_G, some_changes(small_G))
    assert not torch.allclose(synthesize(own, ws), before)
    assert torch.equal(synthesize(small_G, ws), before)


def test_two_people_do_not_meet(small_G: Generator) -> None:
    """Packed weights are kept from call to call; one person's must never be taken for another's."""
    ws, changes = sample_ws(small_G, [1]), some_changes(small_G)
    other = Changes({name: (-up, down) for name, (up, down) in changes.factors.items()}, changes.feature)
    first = synthesize(personal(small_G, changes), ws)
    second = synthesize(personal(small_G, other), ws)
    assert not torch.allclose(first, second)
    assert torch.equal(synthesize(personal(small_G, changes), ws), first)


def test_a_feature_offset_follows_the_code(small_G: Generator) -> None:
    """F' = F + (F(edited) - F(unedited)): what is added does not depend on the code."""
    seen: list[torch.Tensor] = []
    offset = quantised("b8", torch.randn(feature_layers(small_G)["b8"]))
    own = personal(small_G, Changes(feature=offset))
    for G in (small_G, own):
        handle = G.synthesis.b8.register_forward_hook(lambda _m, _i, out: seen.append(out[0]))
        synthesize(G, sample_ws(small_G, [1, 2]))
        handle.remove()
    torch.testing.assert_close(seen[1] - seen[0], offset.values.expand(2, -1, -1, -1), rtol=1e-4, atol=1e-4)


def test_feature_layers_are_in_order_of_execution(small_G: Generator) -> None:
    assert list(feature_layers(small_G).items()) == [("b4", (16, 4, 4)), ("b8", (16, 8, 8)), ("b16", (16, 16, 16))]


def test_rounding_to_eight_bits_is_within_half_a_step() -> None:
    values = torch.randn(3, 5, 5) * torch.tensor([0.01, 1.0, 100.0])[:, None, None]
    kept = quantised("b8", values)
    assert kept.steps.dtype == torch.int8
    assert ((kept.values - values).abs() <= kept.unit / 2 * 1.001).all()
    assert torch.equal(quantised("b8", torch.zeros(2, 4, 4)).values, torch.zeros(2, 4, 4))


def test_changes_of_another_generator_are_refused(small_G: Generator) -> None:
    with pytest.raises(InputError, match=r"change of b8\.nothing does not fit"):
        personal(small_G, Changes({"b8.nothing": (torch.zeros(2, 1), torch.zeros(1, 2))}))
    with pytest.raises(InputError, match=r"change of b8\.conv0\.weight does not fit") as caught:
        personal(small_G, Changes({"b8.conv0.weight": (torch.zeros(2, 1), torch.zeros(1, 2))}))
    assert "--network" in caught.value.hint
    with pytest.raises(InputError, match="feature map b8 does not fit"):
        feature = FeatureOffset("b8", torch.zeros(3, 4, 4, dtype=torch.int8), torch.ones(3, 1, 1))
        synthesize(personal(small_G, Changes(feature=feature)), sample_ws(small_G, [1]))
    with pytest.raises(InputError, match="no feature map b99"):
        personal(small_G, Changes(feature=FeatureOffset("b99", feature.steps, feature.unit)))


def test_a_person_at_1024_px_takes_less_than_ten_megabytes(tmp_path: Path) -> None:
    """Code, noise, factors of the default rank, a feature map of 64 px, and the preview, as they are saved."""
    with torch.device("meta"):
        G = Generator(512, 0, 512, 1024, 3)
    rank = TuneConfig().rank
    factors = {
        name: (torch.zeros(len(w), min(rank, len(w))).half(), torch.zeros(min(rank, len(w)), w[0].numel()).half())
        for name, w in tunable(G).items()
    }
    person = Inversion(
        ws=torch.zeros(G.num_ws, G.w_dim),
        noise=tuple(torch.zeros(shape).half() for shape in G.synthesis.noise_shapes()),
        changes=Changes(factors, quantised("b64", torch.zeros(512, 64, 64))),
        preview=torch.zeros(3, 128, 128, dtype=torch.uint8),
    )
    save_inversion(person, tmp_path / "person.mien")
    assert (tmp_path / "person.mien").stat().st_size < 10e6
