"""The four signs against their definitions: copies, one face for all, and pictures of the same kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mien.training.signs import BOUNDS, Signs, diversity, nearness, speak_up, thumbnails


class Painter(torch.nn.Module):
    """A generator that shows pictures it was given, w being the number of one."""

    z_dim, c_dim, w_dim, num_ws, img_resolution = 2, 0, 1, 1, 8

    def __init__(self, img: torch.Tensor) -> None:
        super().__init__()
        self.img, self.w_avg = img, torch.zeros(1)

    def mapping(self, z: torch.Tensor, c: Any = None, **_: Any) -> torch.Tensor:
        return torch.arange(len(z)).float()[:, None, None]

    def synthesis(self, ws: torch.Tensor, **_: Any) -> torch.Tensor:
        return self.img[ws[:, 0, 0].long() % len(self.img)]


def drawings(num: int = 24, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, [num, 3, 8, 8], generator=rng, dtype=torch.uint8)


def scores(img: torch.Tensor) -> dict[str, float]:
    signs = Signs(drawings(), face_net=None, num=24, device=torch.device("cpu"))
    G: Any = Painter(img)
    return signs(G)


def test_copies_are_near_and_as_diverse() -> None:
    found = scores(drawings().float() / 127.5 - 1)
    assert found["diversity"] == pytest.approx(1) and found["nearest"] == pytest.approx(0, abs=1e-3)
    assert found["frechet"] == pytest.approx(0, abs=1e-3)
    assert "copy" in str(speak_up(found))
    mirrored = scores((drawings().float() / 127.5 - 1).flip(3))
    assert mirrored["nearest"] == pytest.approx(0, abs=1e-3)  # they were shown mirrored, too


def test_one_face_for_all_has_no_diversity() -> None:
    found = scores((drawings().float() / 127.5 - 1)[:1])
    assert found["diversity"] == pytest.approx(0, abs=1e-6) and "repeat" in str(speak_up(found))


def test_others_of_the_same_kind_raise_no_sign() -> None:
    found = scores(drawings(seed=1).float() / 127.5 - 1)
    assert 0.9 < found["diversity"] < 1.1 and 0.9 < found["nearest"] < 1.1
    assert speak_up(found) is None
    assert found["kernel"] < scores(drawings(seed=1).float() / 255)["kernel"]  # paler ones are further off


def test_distances_are_their_definitions() -> None:
    x = torch.tensor([[0.0, 0], [3, 4], [0, 8]])
    assert diversity(x) == pytest.approx((5 + 8 + 5) / 3)
    assert nearness(torch.tensor([[3.0, 4], [0, 6]]), x) == pytest.approx(0)  # the lower median of 0 and 2
    assert thumbnails(torch.ones(2, 3, 32, 32)).shape == (2, 192)


@pytest.mark.parametrize(("name", "bound"), [(name, bound[0]) for name, bound in BOUNDS.items()])
def test_each_sign_speaks_beyond_its_bound(name: str, bound: float) -> None:
    assert [speak_up({name: bound + by}) is not None for by in (-0.01, 0.01)].count(True) == 1
    assert speak_up({"score": 1.0}) is None
