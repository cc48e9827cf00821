"""A walk meets its people, closes, and carries their noise along."""

from __future__ import annotations

import pytest
import torch

from mien.edits.walk import walk
from mien.errors import InputError
from mien.inversion.code import Inversion


def test_a_walk_meets_everyone_and_stops_before_the_first_again() -> None:
    people = [Inversion(ws=torch.randn(4, 3), network="a") for _ in range(3)]
    codes = list(walk(people, 12))
    assert len(codes) == 12
    for i, person in enumerate(people):
        torch.testing.assert_close(codes[4 * i].ws, person.ws)
    assert all(code.network == "a" and code.noise == () for code in codes)
    torch.testing.assert_close(list(walk(people[:1], 3))[2].ws, people[0].ws)


def test_noise_goes_along_and_the_networks_own_stands_in() -> None:
    own = [torch.randn(1, 1, 4, 4), torch.randn(1, 1, 8, 8)]
    inverted = Inversion(ws=torch.randn(4, 3), noise=(torch.randn(4, 4), torch.randn(8, 8)))
    codes = list(walk([inverted, Inversion(ws=torch.randn(4, 3))], 4, own))
    for layer in range(2):
        torch.testing.assert_close(codes[0].noise[layer], inverted.noise[layer])
        torch.testing.assert_close(codes[2].noise[layer], own[layer][0, 0])
        torch.testing.assert_close(codes[1].noise[layer], codes[3].noise[layer])  # half way there, half way back


def test_noise_of_two_generators_is_refused() -> None:
    one, two = (Inversion(ws=torch.zeros(4, 3), noise=(torch.zeros(side, side),)) for side in (4, 8))
    for codes in ((one, two), (one, Inversion(ws=torch.zeros(4, 3)))):
        with pytest.raises(InputError, match="noise maps of two generators"):
            list(walk(codes, 4))


def test_codes_of_two_generators_are_refused() -> None:
    one = Inversion(ws=torch.zeros(4, 3), network="a")
    for other in (Inversion(ws=torch.zeros(5, 3)), Inversion(ws=torch.zeros(4, 3), network="b")):
        with pytest.raises(InputError, match="two generators"):
            list(walk([one, other], 4))
    with pytest.raises(InputError, match="needs keys and frames, got 0 and 4"):
        list(walk([], 4))
