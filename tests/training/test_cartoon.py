"""Cartoons without pairs on tiny networks: filters by definition, colours learned, the same bits after a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mien.errors import Cancelled, InputError
from mien.nets.features import FaceNet
from mien.report import Step
from mien.training.cartoon import CartoonConfig, cartoon, coloured, guided_filter, sharpest, surface, texture, varied
from mien.training.data import PictureSet

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = CartoonConfig(
    kimg=0.04,
    pre_kimg=0.012,
    batch_size=4,
    widths=(4, 6, 8),
    num_blocks=(0, 0, 1),
    ndf=4,
    min_chroma=0.0,
    precision="fp32",
    save_kimg=0.016,
)


def pictures(num: int = 6, side: int = 32, seed: int = 0) -> PictureSet:
    """Smooth colours."""
    rng = torch.Generator().manual_seed(seed)
    img = torch.nn.functional.interpolate(torch.rand(num, 3, 4, 4, generator=rng), side, mode="bilinear")
    styles = np.array(["ink", "oil"] * (num // 2))
    return PictureSet((img * 255).to(torch.uint8), [f"{i}" for i in range(num)], {"style": styles}, f"digest {seed}")


def face_net() -> FaceNet:
    torch.manual_seed(0)
    return FaceNet(channels=(4, 4, 4), num_blocks=(0, 0, 0), embedding_dim=4, norm=False)


def run(folder: Path, config: CartoonConfig = TINY, **options: object) -> torch.nn.Module:
    drawings = options.pop("drawings", pictures(seed=1))
    return cartoon(config, pictures(), drawings, folder, face_net=face_net(), **options)  # type: ignore[arg-type]


def test_the_guided_filter_is_its_definition() -> None:
    """He et al. 2010: in each window the line a I + b of least squares, with eps on a; then the mean of the lines."""
    img, radius, eps = torch.rand(1, 1, 12, 12, dtype=torch.float64), 2, 0.1
    padded = torch.nn.functional.pad(img, (radius,) * 4, mode="reflect")[0, 0]
    a, b = torch.zeros(12, 12, dtype=torch.float64), torch.zeros(12, 12, dtype=torch.float64)
    for y in range(12):
        for x in range(12):
            window = padded[y : y + 5, x : x + 5]
            a[y, x] = window.var(unbiased=False) / (window.var(unbiased=False) + eps)
            b[y, x] = window.mean() * (1 - a[y, x])
    a, b = (torch.nn.functional.pad(m[None, None], (radius,) * 4, mode="reflect")[0, 0] for m in (a, b))
    for y, x in ((0, 0), (5, 7), (11, 3)):
        line = a[y : y + 5, x : x + 5].mean() * img[0, 0, y, x] + b[y : y + 5, x : x + 5].mean()
        torch.testing.assert_close(guided_filter(img, radius, eps)[0, 0, y, x], line)


def test_edges_stay_and_grain_goes() -> None:
    torch.manual_seed(0)
    step = torch.zeros(1, 1, 32, 32)
    step[..., 16:] = 2.0
    smooth = guided_filter(step + 0.05 * torch.randn(1, 1, 32, 32))
    assert (smooth[..., 4:12] - smooth[..., 4:12].mean()).std() < 0.02
    assert float(smooth[..., 18:28].mean() - smooth[..., 4:14].mean()) > 1.9


def test_what_the_critics_see() -> None:
    rng = torch.Generator().manual_seed(0)
    img = torch.rand(3, 3, 32, 32)
    assert surface(img, rng).shape == (3, 3, 16, 16)
    grey = texture(img, rng)
    shares = torch.linalg.lstsq(img.permute(0, 2, 3, 1).reshape(-1, 3), grey.reshape(-1, 1)).solution[:, 0]
    assert shares.sum() == pytest.approx(1, abs=1e-4) and (shares > 0).all()
    moved = varied(img, rng)
    assert moved.shape == img.shape and not torch.equal(moved, img)
    level = torch.full((1, 3, 32, 32), 0.3)
    assert varied(level, rng).std() < 1e-6  # light moves, nothing else is there


def test_the_sharpest_are_chosen_in_order() -> None:
    torch.manual_seed(0)
    noise = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    flat = torch.full((4, 3, 16, 16), 100, dtype=torch.uint8)
    both = torch.stack([flat, noise], 1).flatten(0, 1)
    assert sharpest(both, 0.5).tolist() == [1, 3, 5, 7]


def test_grey_drawings_are_left_out() -> None:
    drawings = pictures(4)
    drawings.pixels[0] = drawings.pixels[0].float().mean(0).to(torch.uint8)
    assert coloured(drawings, 3.0).names == ["1", "2", "3"]
    with pytest.raises(InputError, match="no drawing has colour"):
        coloured(drawings, 255.0)


@pytest.mark.slow
def test_it_takes_the_drawings_colours(tmp_path: Path) -> None:
    """Where nothing holds it to the photo but a little, the two critics pull it towards what the drawings look like."""
    red = pictures(seed=1)
    red.pixels[:, 0], red.pixels[:, 1:] = 250, 5
    free = replace(TINY, kimg=0.5, pre_kimg=0.1, content_weight=0.0, colour_weight=0.1, surface_weight=3.0, lr=8e-3)
    G = run(tmp_path, free, drawings=red)
    photo = pictures().pixels.float() / 127.5 - 1
    with torch.no_grad():
        drawn = G(photo)

    def redness(img: torch.Tensor) -> float:
        return float((img[:, 0] - img[:, 1:].mean(1)).mean())

    assert redness(drawn) > redness(photo) + 0.4


def test_it_begins_by_smoothing(tmp_path: Path) -> None:
    first = replace(
        TINY, kimg=0.24, pre_kimg=0.24, lr=1.5e-2, content_weight=0.0, colour_weight=0.0, variation_weight=0.0
    )
    G = run(tmp_path, first)
    photo = pictures().pixels.float() / 127.5 - 1
    with torch.no_grad():
        assert (G(photo) - guided_filter(photo)).abs().mean() < 0.12 < guided_filter(photo).abs().mean()


def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", held=pictures(2, seed=3))

    def stop(step: Step) -> None:
        if step.done == 6:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        run(tmp_path / "cut", on_step=stop)
    again = run(tmp_path / "cut")
    for name, kept in whole.state_dict().items():
        assert torch.equal(kept, again.state_dict()[name]), name
    assert [path.name for path in sorted((tmp_path / "whole").glob("samples-*.png"))] == [
        "samples-0000004.png", "samples-0000008.png", "samples-0000010.png",
    ]  # fmt: skip
    stats = [json.loads(line) for line in (tmp_path / "whole" / "stats.jsonl").read_text().splitlines()]
    assert {"texture", "surface", "content", "colour", "discriminator"} < set(stats[-1])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="photos and drawings are of 32 px and 64 px"):
        run(tmp_path, drawings=pictures(side=64))
    with pytest.raises(InputError, match="no picture has style=chalk"):
        run(tmp_path, replace(TINY, where="style=chalk"))
    with pytest.raises(InputError, match="takes no 32 px"):
        run(tmp_path, replace(TINY, widths=(4,) * 7, num_blocks=(0,) * 7))
    with pytest.raises(InputError, match="sharp_share must be above 0"):
        CartoonConfig(sharp_share=0)
    with pytest.raises(InputError, match="make no student"):
        CartoonConfig(widths=(4, 4), num_blocks=(0,))
    run(tmp_path / "run")
    with pytest.raises(InputError, match="with other settings: content_weight"):
        run(tmp_path / "run", replace(TINY, content_weight=1.0))
