"""Style transfer: rows and share of the style, colour by its moments, and codes in related generators alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mien.edits.style import check_decodes, decode, restyle, with_chroma_of
from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.latents import fitted, sample_ws, scale_rows, synthesize
from mien.nets.stylegan2 import Generator
from mien.training.grow import grow_generator

KWARGS = dict(mapping_kwargs=dict(num_layers=1), synthesis_kwargs=dict(channel_base=256, channel_max=8))


def tiny(seed: int) -> Generator:
    torch.manual_seed(seed)
    return Generator(8, 0, 8, 16, 3, **KWARGS).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def home() -> Generator:
    return tiny(0)


@pytest.fixture(scope="module")
def related(home: Generator) -> Generator:
    """The same after a little fine-tuning."""
    torch.manual_seed(3)
    twin = copy.deepcopy(home)
    for p in twin.synthesis.parameters():
        p.data += 0.2 * p.data.std(correction=0) * torch.randn_like(p)
    return twin


@pytest.fixture
def code(home: Generator) -> Inversion:
    return Inversion(ws=sample_ws(home, [5])[0])


def luma(img: Tensor) -> Tensor:
    return (img * torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(1)


def test_restyle_keeps_a_share_of_its_own_in_the_rows_of_the_style() -> None:
    ws, style = torch.zeros(2, 5, 3), torch.ones(1, 5, 3).expand(2, -1, -1)
    mixed = restyle(ws, style, [3, 4], 0.25)
    assert (mixed[:, :3] == 0).all()
    torch.testing.assert_close(mixed[:, 3:], torch.full((2, 2, 3), 0.75))
    assert (ws == 0).all()
    torch.testing.assert_close(restyle(ws, style, range(5), 1.0), ws)
    torch.testing.assert_close(restyle(ws, style, range(5)), style.contiguous())


def test_restyle_refuses_what_cannot_be() -> None:
    ws = torch.zeros(1, 5, 3)
    with pytest.raises(InputError, match=r"psi is 1\.5"):
        restyle(ws, ws, [0], 1.5)
    with pytest.raises(InputError, match="two generators"):
        restyle(ws, torch.zeros(1, 6, 3), [0])
    with pytest.raises(InputError, match="no row 5"):
        restyle(ws, ws, [5])


@pytest.mark.parametrize(
    ("rows", "num_ws", "scaled"),
    [
        (range(9, 18), 18, list(range(9, 18))),
        (range(9, 18), 10, [5, 6, 7, 8, 9]),
        (range(4, 10), 10, [2, 3, 4, 5]),
        (range(4, 10), 14, [3, 4, 5, 6, 7]),
        (range(18), 26, list(range(26))),
        ([9], 36, [18, 19]),
    ],
)
def test_rows_scale_by_their_places(rows: range, num_ws: int, scaled: list[int]) -> None:
    assert scale_rows(rows, num_ws) == scaled


def test_rows_of_a_cut_share_no_row() -> None:
    for num_ws in range(4, 30):
        shape, light = scale_rows(range(9), num_ws), scale_rows(range(9, 18), num_ws)
        assert shape + light == list(range(num_ws))


def test_rows_that_cannot_be_scaled() -> None:
    with pytest.raises(InputError, match="no row 18"):
        scale_rows([17, 18], 10)
    with pytest.raises(InputError, match="no row of 10 stands at 3 of 18"):
        scale_rows([3], 10)


def test_chroma_gets_the_moments_of_the_reference_and_luminance_stays() -> None:
    torch.manual_seed(0)
    img, reference = 0.1 * torch.randn(2, 3, 16, 16), 0.05 * torch.randn(2, 3, 16, 16) + 0.1
    kept = with_chroma_of(img, reference)
    torch.testing.assert_close(luma(kept), luma(img), atol=1e-5, rtol=0)

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        chroma = (x[:, [2, 0]] - luma(x)[:, None]).flatten(2)
        return chroma.mean(2), torch.stack([one.cov(correction=0) for one in chroma])

    for actual, expected in zip(moments(kept), moments(reference), strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-4, rtol=0.02)


def test_chroma_of_itself_is_the_picture_and_grey_stays_nearly_grey() -> None:
    torch.manual_seed(0)
    img = 0.2 * torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(with_chroma_of(img, img), img, atol=1e-5, rtol=0)
    grey = 0.2 * torch.randn(1, 1, 8, 8).expand(-1, 3, -1, -1)
    back = with_chroma_of(img, grey)
    assert (back.amax(1) - back.amin(1)).mean() < 0.05


def test_a_code_is_drawn_by_a_related_generator(home: Generator, related: Generator, code: Inversion) -> None:
    torch.testing.assert_close(decode(code, home, home), code.render(home))
    drawn = decode(code, home, related)
    torch.testing.assert_close(drawn, synthesize(related, code.ws[None]))
    assert not torch.allclose(drawn, code.render(home))


def test_a_code_is_drawn_by_one_that_has_grown(home: Generator, related: Generator, code: Inversion) -> None:
    grown = grow_generator(related, 32)
    noisy = replace(code, noise=tuple(torch.zeros(*shape) for shape in home.synthesis.noise_shapes()))
    drawn = decode(noisy, home, grown)
    rows = fitted(code.ws[None], grown.num_ws)
    assert rows.shape[1] == code.ws.shape[0] + 2 and torch.equal(rows[0, -1], code.ws[-1])
    torch.testing.assert_close(drawn, synthesize(grown, rows))
    assert torch.equal(fitted(rows, home.num_ws)[0], code.ws)


def test_strangers_are_refused_unless_they_are_wanted(home: Generator, code: Inversion) -> None:
    stranger = tiny(9)
    with pytest.raises(InputError, match=r"means nothing to the other generator.*not related") as caught:
        check_decodes(home, stranger)
    assert "fine-tuned" in str(caught.value.hint)
    with pytest.raises(InputError, match="means nothing"):
        decode(code, home, stranger)
    assert decode(code, home, stranger, min_cosine=None).shape == (1, 3, 16, 16)
    wide = Generator(8, 0, 8, 32, 3, **KWARGS)
    with pytest.raises(InputError, match="means nothing"):
        decode(code, home, wide)
    with pytest.raises(InputError, match="the code is"):
        decode(code, home, wide, min_cosine=None)
