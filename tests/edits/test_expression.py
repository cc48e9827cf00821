"""Expressions: what is read and wanted, the moves that bring it, and what they leave as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mien.edits.directions import Direction, StyleDirection
from mien.edits.expression import (
    EMOTIONS,
    MOVING,
    ExpressionConfig,
    _Moves,
    along,
    distance,
    emotion,
    express,
    held,
    read,
    region,
    wanted_of,
)
from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.inversion.invert import find_edit
from mien.inversion.personal import Changes
from mien.latents import LatentStats, latent_stats, sample_ws, scale_rows
from mien.nets import stylegan1, stylegan3
from mien.nets.features import EXPRESSIONS, MIRRORED, FaceNet, FaceReading
from mien.nets.stylegan2 import Generator

EASY = ExpressionConfig(
    num_steps=20, identity_weight=0.0, pose_weight=0.0, move_weight=0.0, outside_weight=0.0, overshoot=1.0
)


class Colours(nn.Module):
    """Stands in for the face network: every blendshape is the colour of a place, and so are pose and identity."""

    def forward(self, img: Tensor) -> FaceReading:
        flat = img.flatten(1)
        identity = nn.functional.normalize(flat[:, :16] + 0.1, dim=1)
        expression = (0.5 * flat[:, 100 : 100 + len(EXPRESSIONS)]).sigmoid()
        none = flat.new_zeros(len(flat))
        return FaceReading(identity, [], 10 * flat[:, 50:53], expression, none, none)


@pytest.fixture(scope="module")
def G(make_G: Callable[..., Generator]) -> Generator:
    return make_G(z_dim=16, w_dim=16, num_layers=2, channel_base=512, channel_max=16)


@pytest.fixture(scope="module")
def stats(G: Generator) -> LatentStats:
    return latent_stats(G, num=500)


@pytest.fixture
def people(G: Generator) -> list[Inversion]:
    return [Inversion(ws=ws) for ws in sample_ws(G, [1, 2])]


def readings(G: Generator, codes: list[Inversion]) -> Tensor:
    return read(Colours(), torch.cat([code.render(G) for code in codes])).expression  # type: ignore[arg-type]


def moved(G: Generator, stats: LatentStats, codes: list[Inversion], config: ExpressionConfig) -> list[Inversion]:
    wanted = readings(G, [Inversion(ws=ws) for ws in sample_ws(G, [7, 8])])[: len(codes)]
    return express(G, codes, wanted, face_net=Colours(), stats=stats, config=config)  # type: ignore[arg-type]


def test_a_mirror_swaps_the_sides() -> None:
    smile = [EXPRESSIONS.index(f"mouthSmile{side}") for side in ("Left", "Right")]
    assert [MIRRORED[i] for i in smile] == smile[::-1]
    assert MIRRORED[EXPRESSIONS.index("jawOpen")] == EXPRESSIONS.index("jawOpen")
    assert [MIRRORED[i] for i in MIRRORED] == list(range(len(EXPRESSIONS)))


def test_a_mirror_picture_reads_as_the_mirrored_expression() -> None:
    torch.manual_seed(0)
    net = FaceNet(channels=(4, 4, 4, 4), num_blocks=(0, 0, 0, 0), embedding_dim=8, norm=False).eval()
    img = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(read(net, img.flip(3)).expression, read(net, img).expression[:, MIRRORED])


def test_distance_leaves_out_where_the_eyes_look() -> None:
    a, b = torch.zeros(1, len(EXPRESSIONS)), torch.zeros(1, len(EXPRESSIONS))
    b[0, EXPRESSIONS.index("eyeLookUpLeft")] = 1
    assert distance(a, b) == 0
    b[0, EXPRESSIONS.index("jawOpen")] = 0.5
    torch.testing.assert_close(distance(a, b), torch.tensor([0.5 / len(MOVING)]))


def test_what_is_not_named_stays_the_persons_own() -> None:
    own = torch.full((1, len(EXPRESSIONS)), 0.25)
    wanted = wanted_of(own, {"mouthSmile": 0.75, "browDownLeft": 0.0}, 0.5)
    for name, value in zip(EXPRESSIONS, wanted[0].tolist(), strict=True):
        expected = {"mouthSmileLeft": 0.5, "mouthSmileRight": 0.5, "browDownLeft": 0.125}.get(name, 0.25)
        assert value == pytest.approx(expected), name
    torch.testing.assert_close(wanted_of(own, {"jawOpen": 1.0}, 0.0), own)
    assert wanted_of(own, {"jawOpen": 1.0}, 9.0).max() == 1


def test_emotions_are_blendshapes_in_range() -> None:
    own = torch.full((1, len(EXPRESSIONS)), 0.5)
    for name in EMOTIONS:
        assert not torch.equal(wanted_of(own, emotion(name)), own)


def test_what_cannot_be_shown_is_refused() -> None:
    own = torch.zeros(1, len(EXPRESSIONS))
    with pytest.raises(InputError, match="no emotion named 'boredom'") as caught:
        emotion("boredom")
    assert "happiness" in str(caught.value.hint)
    with pytest.raises(InputError, match="no blendshape named 'mouth'"):
        wanted_of(own, {"mouth": 1.0})
    with pytest.raises(InputError, match=r"jawOpen is 1\.5"):
        wanted_of(own, {"jawOpen": 1.5})
    for wrong in ({"first": 10, "last": 9}, {"last": 18}, {"lr": 0.0}, {"num_steps": -1}, {"together": 1.0}):
        with pytest.raises(InputError):
            ExpressionConfig(**wrong)  # type: ignore[arg-type]


def test_the_region_is_brows_eyes_and_mouth() -> None:
    mask = region(64)[0, 0]
    for x, y in ((0.37, 0.46), (0.63, 0.46), (0.5, 0.7)):
        assert mask[int(64 * y), int(64 * x)] == 1
    assert mask[0].max() == mask[-1].max() == mask[:, 0].max() == 0
    torch.testing.assert_close(mask, mask.flip(1))
    after, before = torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    torch.testing.assert_close(held(after, before), mask.expand(1, 3, -1, -1))


def test_moves_are_standard_normal_where_codes_are(G: Generator, stats: LatentStats) -> None:
    """A unit of u is a unit of the whitened coordinates, as long as no coordinate of w changes its sign."""
    ws = sample_ws(G, [3])
    moves = _Moves(ws, stats, replace(EASY, together=0.0))
    u = torch.zeros(moves.shape)
    u[0, 0, 0] = 1e-3
    change = stats.whiten(moves.codes(u)) - stats.whiten(ws)
    torch.testing.assert_close(change[0, 0, 0], torch.tensor(1e-3), atol=2e-5, rtol=0)
    assert change[0, 0, 1:].abs().max() < 2e-5
    assert (change[0, 1:] == 0).all()


def test_a_face_takes_the_expression_of_another(G: Generator, stats: LatentStats, people: list[Inversion]) -> None:
    wanted = readings(G, [Inversion(ws=ws) for ws in sample_ws(G, [7, 8])])
    after = moved(G, stats, people, EASY)
    far, near = distance(readings(G, people), wanted), distance(readings(G, after), wanted)
    assert (near < 0.6 * far).all(), (far, near)
    for code, value in zip(after, near.tolist(), strict=True):
        assert code.losses["expression"] == pytest.approx(value, abs=1e-4)
    still = [row for row in range(G.num_ws) if row not in scale_rows(range(EASY.first, EASY.last + 1), G.num_ws)]
    assert still
    for code, before in zip(after, people, strict=True):
        assert torch.equal(code.ws[still], before.ws[still])


@pytest.mark.parametrize("term", ["identity", "pose", "move", "outside"])
def test_every_term_holds_what_it_names(term: str, G: Generator, stats: LatentStats, people: list[Inversion]) -> None:
    free = moved(G, stats, people, EASY)
    held_back = moved(G, stats, people, replace(EASY, **{f"{term}_weight": 50.0}))
    for a, b in zip(held_back, free, strict=True):
        assert a.losses[term] < b.losses[term]


def test_together_is_as_one_by_one(G: Generator, stats: LatentStats, people: list[Inversion]) -> None:
    wanted = readings(G, [Inversion(ws=ws) for ws in sample_ws(G, [7, 8])])
    both = moved(G, stats, people, EASY)
    for i, code in enumerate(people):
        (alone,) = express(G, [code], wanted[i : i + 1], face_net=Colours(), stats=stats, config=EASY)  # type: ignore[arg-type]
        torch.testing.assert_close(alone.ws, both[i].ws, atol=1e-2, rtol=0)


def test_a_persons_own_noise_and_weights_are_kept(G: Generator, stats: LatentStats, people: list[Inversion]) -> None:
    name, weight = next((n, p) for n, p in G.synthesis.named_parameters() if p.ndim == 4)
    torch.manual_seed(0)
    factors = {name: (torch.randn(len(weight), 1), 0.1 * torch.randn(1, weight[0].numel()))}
    noise = tuple(torch.randn(*shape) for shape in G.synthesis.noise_shapes())
    tuned = replace(people[0], changes=Changes(factors), noise=noise)
    after = moved(G, stats, [tuned, people[1]], EASY)
    assert after[0].changes is tuned.changes
    assert after[0].noise is tuned.noise
    assert distance(readings(G, after[:1]), readings(G, [tuned])) > 0


def test_no_steps_is_the_first_move_and_shapes_are_checked(
    G: Generator, stats: LatentStats, people: list[Inversion]
) -> None:
    (first, _) = moved(G, stats, people, replace(EASY, num_steps=0))
    assert not torch.equal(first.ws, people[0].ws)
    with pytest.raises(InputError, match=r"must be \[2, 32\], got \[1, 32\]"):
        express(G, people, torch.zeros(1, 32), face_net=Colours(), stats=stats)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", [stylegan1, stylegan3])
def test_every_family_takes_expressions(family: Any) -> None:
    torch.manual_seed(0)
    widths: dict[str, Any] = dict(channel_base=256, channel_max=8)
    kwargs = widths if family is stylegan3 else dict(synthesis_kwargs=widths)
    net = family.Generator(6, 0, 8, 16, 3, mapping_kwargs=dict(num_layers=2), **kwargs).eval().requires_grad_(False)
    code = Inversion(ws=sample_ws(net, [1])[0])
    (after,) = moved(net, latent_stats(net, num=200), [code], replace(EASY, num_steps=1))
    assert after.ws.shape == code.ws.shape and not torch.equal(after.ws, code.ws)


def test_a_preset_moves_its_rows_by_its_length() -> None:
    ws, move = torch.zeros(1, 10, 4), find_edit("lab-emotion")
    direction = Direction(torch.tensor([3.0, 0, 4, 0]), (0,), "1 unit", 1.0, (-1.0, 1.0))
    moved = along(ws, direction, move)
    assert moved[0].norm(dim=1).tolist() == pytest.approx([0, 0, 10.5, 10.5, 10.5, 10.5, 0, 0, 0, 0])
    torch.testing.assert_close(moved[0, 2], torch.tensor([6.3, 0, 8.4, 0]))
    of_styles = StyleDirection({}, "1 unit", 1.0, (-1.0, 1.0))
    with pytest.raises(InputError, match="channels of styles"):
        along(ws, of_styles, move)
    with pytest.raises(InputError, match="no preset named 'lab'"):
        find_edit("lab")
