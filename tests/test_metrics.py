"""Metrics: against scikit-image, closed forms, and sets whose answer is plain."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mien.errors import InputError
from mien.metrics import (
    compare_folders,
    describe_folder,
    frechet_distance,
    kernel_distance,
    ms_ssim,
    nearest,
    precision_recall,
    psnr,
    ssim,
    verification,
)
from mien.report import Step


@pytest.fixture
def gen() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def pixels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (2, 24, 20, 3), dtype=np.uint8)
    return a, np.clip(a + rng.normal(0, 20, a.shape), 0, 255).astype(np.uint8)


def as_img(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 127.5 - 1


def test_psnr_and_ssim_are_those_of_scikit_image(pixels) -> None:
    a, b = pixels
    for i in range(2):
        assert float(psnr(as_img(a), as_img(b))[i]) == pytest.approx(peak_signal_noise_ratio(a[i], b[i]), abs=1e-9)
        theirs = structural_similarity(a[i].astype(float), b[i].astype(float), channel_axis=2, data_range=255)
        assert float(ssim(as_img(a), as_img(b))[i]) == pytest.approx(theirs, abs=1e-9)


def test_equal_pictures(pixels) -> None:
    img = as_img(pixels[0])
    assert psnr(img, img).tolist() == [math.inf] * 2
    torch.testing.assert_close(ssim(img, img), torch.ones(2, dtype=torch.float64))


def test_ssim_refuses_pictures_smaller_than_its_window() -> None:
    with pytest.raises(InputError, match="at least 7 px"):
        ssim(torch.zeros(1, 3, 6, 9), torch.zeros(1, 3, 6, 9))


def shaped(x: torch.Tensor, mean: torch.Tensor, cov: torch.Tensor) -> torch.Tensor:
    """Give x [N, D] exactly this mean and covariance."""
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return white @ torch.linalg.cholesky(cov).T + mean


def test_frechet_distance_of_two_gaussians_in_closed_form(gen) -> None:
    """Diagonal covariances commute: the distance is that of the means and of the standard deviations."""
    mean, std = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([1.0, 2.0, 0.3]).double()
    x = shaped(torch.randn(50, 3, generator=gen, dtype=torch.float64), torch.zeros(3).double(), torch.eye(3).double())
    y = shaped(torch.randn(60, 3, generator=gen, dtype=torch.float64), mean, std.square().diag())
    expected = float(mean.square().sum() + (std - 1).square().sum())
    assert frechet_distance(x, y) == pytest.approx(expected, abs=1e-9)
    assert frechet_distance(y, x) == pytest.approx(expected, abs=1e-9)
    assert frechet_distance(y, y) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_its_formula(gen) -> None:
    """Against the matrix root of the product itself, for covariances that do not commute, one of them singular."""
    a, b = torch.randn(2, 40, 4, generator=gen, dtype=torch.float64)
    a = a @ torch.randn(4, 4, generator=gen, dtype=torch.float64)
    b[:, 3] = b[:, 0] + b[:, 1]
    product = torch.cov(a.T) @ torch.cov(b.T)
    root = torch.linalg.eigvals(product).real.clamp(min=0).sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + torch.cov(a.T).trace() + torch.cov(b.T).trace() - 2 * root
    assert frechet_distance(a, b) == pytest.approx(float(expected), abs=1e-6)
    assert frechet_distance(a[:, :1], b[:, :1]) >= 0  # one feature only


def test_kernel_distance_is_its_definition(gen) -> None:
    x, y = torch.randn(5, 3, generator=gen), torch.randn(4, 3, generator=gen) + 1

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(((a.double() @ b.double()) / 3 + 1) ** 3)

    expected = sum(k(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / 20
    expected += sum(k(y[i], y[j]) for i in range(4) for j in range(4) if i != j) / 12
    expected -= 2 * sum(k(a, b) for a in x for b in y) / 20
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_of_one_distribution_is_about_zero(gen) -> None:
    x, y = torch.randn(2, 500, 4, generator=gen)
    assert abs(kernel_distance(x, y)) < 0.05
    assert kernel_distance(x, y + 1) > 1


def test_kernel_distance_over_subsets_is_the_mean_of_their_estimates(gen) -> None:
    x, y = torch.randn(2, 60, 3, generator=gen)
    whole = kernel_distance(x, y + 1, num_subsets=3, subset_size=60)
    assert whole == pytest.approx(kernel_distance(x, y + 1))  # every subset is everything
    some = kernel_distance(x, y + 1, num_subsets=200, subset_size=20)
    assert some == pytest.approx(whole, rel=0.1)  # unbiased
    assert some == kernel_distance(x, y + 1, num_subsets=200, subset_size=20)
    with pytest.raises(InputError, match="subsets of at least 2"):
        kernel_distance(x, y, subset_size=1)


def test_precision_and_recall_of_a_set_that_covers_half() -> None:
    line = torch.arange(20.0)[:, None]
    reference = torch.cat([line, line + 1000])
    assert precision_recall(line, reference) == (1.0, 0.5)
    assert precision_recall(reference, line) == (0.5, 1.0)
    assert precision_recall(line + 0.5, line + 5000) == (0.0, 0.0)


def test_precision_and_recall_do_not_depend_on_the_blocks(gen, monkeypatch) -> None:
    x, y = torch.randn(2, 70, 3, generator=gen)
    whole = precision_recall(x, y[:50])
    monkeypatch.setattr("mien.metrics.ROWS", 16)
    assert precision_recall(x, y[:50]) == whole
    assert 0 < whole[0] < 1


def test_nearest_finds_the_row_and_the_distance() -> None:
    rows, distances = nearest(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([[8.0, 0.0], [3.0, 4.0]]))
    assert rows.tolist() == [1, 0]
    assert distances.tolist() == [5.0, 1.0]


@pytest.mark.parametrize("metric", [frechet_distance, kernel_distance, precision_recall, nearest])
def test_sets_must_fit(metric) -> None:
    with pytest.raises(InputError, match="of one length"):
        metric(torch.zeros(9, 3), torch.zeros(9, 4))
    with pytest.raises(InputError, match="two sets"):
        metric(torch.zeros(9, 3), torch.zeros(0, 3))


def write_pictures(folder: Path, levels: list[int], size: tuple[int, int] = (8, 8)) -> Path:
    folder.mkdir(exist_ok=True)
    for i, level in enumerate(levels):
        PIL.Image.new("RGB", size, (level, 0, 255)).save(folder / f"{size[0]}_{i:02}.png")
    return folder


def colours(img: torch.Tensor) -> torch.Tensor:
    return img.mean((2, 3))


def test_a_folder_is_described_in_the_order_of_its_paths(tmp_path) -> None:
    write_pictures(tmp_path, [0, 51, 102], size=(8, 8))
    write_pictures(tmp_path / "more", [153, 255], size=(9, 8))
    (tmp_path / "notes.txt").write_text("not a picture")
    steps: list[Step] = []
    features = describe_folder(tmp_path, colours, batch_size=2, on_step=steps.append)
    torch.testing.assert_close(features[:, 0], torch.tensor([-1, -0.6, -0.2, 0.2, 1]))
    assert (steps[-1].done, steps[-1].total) == (5, 5)


def test_folders_are_compared_by_any_features(tmp_path) -> None:
    a = write_pictures(tmp_path / "a", [10, 40, 90, 200, 220])
    b = write_pictures(tmp_path / "b", [15, 45, 80, 190, 230])
    scores = compare_folders(a, b, colours, judge="colours")
    x, y = (describe_folder(folder, colours) for folder in (a, b))
    assert (scores.judge, scores.num, scores.num_reference) == ("colours", 5, 5)
    assert scores.fid == pytest.approx(frechet_distance(x, y))
    assert scores.kid == pytest.approx(kernel_distance(x, y))  # of fewer pictures than a subset has
    assert (scores.precision, scores.recall) == precision_recall(x, y)
    with pytest.raises(InputError, match="no pictures in"):
        compare_folders(a, tmp_path / "none", colours, judge="")


def test_verification_of_pairs_that_a_threshold_tells_apart() -> None:
    rng = np.random.default_rng(0)
    same = rng.random(200) < 0.5
    accuracy, threshold = verification(np.where(same, 0.7, 0.1) + 0.1 * rng.random(200), same)
    assert accuracy == 1.0
    assert 0.2 < threshold < 0.7


def test_verification_judges_each_fold_by_the_others() -> None:
    """Scores that say nothing reach a half, not what a threshold chosen on the same pairs would."""
    rng = np.random.default_rng(0)
    same = rng.permutation(np.arange(4000) % 4 == 0)
    accuracy, _ = verification(np.where(same, 0.1, 0.7), same)
    assert accuracy == 0.75  # the best threshold lies above all scores
    accuracy, _ = verification(rng.random(40), rng.permutation(40) % 2 == 0)
    assert accuracy < 0.6


def test_verification_needs_a_pair_for_each_fold() -> None:
    with pytest.raises(InputError, match="10 folds"):
        verification(np.zeros(9), np.zeros(9, bool))


def test_ms_ssim_is_its_definition(gen: torch.Generator) -> None:
    """One channel at a time, by scipy's Gaussian; windows that leave the picture do not count."""
    x = torch.rand(2, 3, 192, 176, generator=gen) * 2 - 1
    y = (x + 0.3 * torch.randn(x.shape, generator=gen)).clamp(-1, 1)

    def blurred(a: np.ndarray) -> np.ndarray:
        return gaussian_filter(a, 1.5, truncate=3.5)[5:-5, 5:-5]

    def channel(a: np.ndarray, b: np.ndarray) -> float:
        result = 1.0
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            if scale:
                a, b = (z.reshape(len(z) // 2, 2, -1, 2).mean((1, 3)) for z in (a, b))
            mean_a, mean_b = blurred(a), blurred(b)
            var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
            part = (2 * (blurred(a * b) - mean_a * mean_b) + 0.0009) / (var_a + var_b + 0.0009)
            if scale == 4:
                part = part * (2 * mean_a * mean_b + 0.0001) / (mean_a**2 + mean_b**2 + 0.0001)
            result *= part.mean() ** weight
        return result

    a, b = (z.double().numpy() / 2 + 0.5 for z in (x, y))
    expected = [np.mean([channel(a[n, c], b[n, c]) for c in range(3)]) for n in range(2)]
    assert ms_ssim(y, x).tolist() == pytest.approx(expected, rel=1e-9)
    assert ms_ssim(x, x).tolist() == pytest.approx([1.0, 1.0])


def test_ms_ssim_wants_room_for_five_scales() -> None:
    with pytest.raises(InputError, match=r"at least 176 px, got \[128, 128\]"):
        ms_ssim(torch.zeros(1, 3, 128, 128), torch.zeros(1, 3, 128, 128))
