"""Inversion as a whole: every start with every refinement, presets as published, people apart, recovery."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from mien.errors import InputError
from mien.inversion.hybrid import HybridConfig
from mien.inversion.invert import EDIT_PRESETS, PRESETS, REFINEMENTS, Method, RowMove, find_method, invert
from mien.inversion.project import ProjectConfig
from mien.inversion.starts import STARTS, Means
from mien.inversion.tune import TuneConfig
from mien.latents import LatentStats, sample_ws, synthesize
from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator


@pytest.fixture
def means(small_G: Generator, small_stats: LatentStats, small_face_net: FaceNet) -> Means:
    codes = sample_ws(small_G, [8])
    return Means(
        stats=small_stats,
        encode=lambda img: codes.expand(len(img), -1, -1),
        face_model=small_face_net,
        given=codes.expand(2, -1, -1),
    )


@pytest.mark.parametrize("refinement", sorted(REFINEMENTS))
@pytest.mark.parametrize("start", sorted(STARTS))
def test_any_start_goes_with_any_refinement(small_G: Generator, means: Means, start: str, refinement: str) -> None:
    img = synthesize(small_G, sample_ws(small_G, [1, 2]))
    stages = tuple(
        replace(s, num_steps=1, **({"tune": TuneConfig(num_steps=1, rank=1)} if isinstance(s, HybridConfig) else {}))
        for s in REFINEMENTS[refinement]
    )
    found = invert(small_G, img, Method(start, stages), means)
    assert len(found) == 2
    for inversion in found:
        assert inversion.ws.shape == (small_G.num_ws, small_G.w_dim)
        assert bool(inversion.changes) == (refinement in ("pti", "hybrid"))
        assert inversion.render(small_G).isfinite().all()
        assert inversion.config["start"] == start
        json.dumps(inversion.config)


@pytest.mark.parametrize("name", ["w+noise", "pti", "hybrid"])
def test_a_batch_gives_what_one_by_one_gives(small_G: Generator, means: Means, name: str) -> None:
    """Within 1 % of the loss: sums over batches of other sizes round differently, and the steps carry that on."""
    stages: dict[str, tuple[ProjectConfig | TuneConfig | HybridConfig, ...]] = {
        "w+noise": (ProjectConfig(num_steps=12, patience=4, min_progress=0.02),),
        "pti": (ProjectConfig(num_steps=5), TuneConfig(num_steps=5, rank=2)),
        "hybrid": (
            ProjectConfig(num_steps=5),
            HybridConfig(num_steps=5, tune=TuneConfig(num_steps=5, rank=2, locality_weight=0.0)),
        ),
    }
    method = Method("encoder", stages[name])
    img = synthesize(small_G, sample_ws(small_G, [1, 2, 3]))
    for i, one in enumerate(invert(small_G, img, method, means)):
        alone = invert(small_G, img[i : i + 1], method, means)[0]
        assert one.picture == alone.picture
        assert one.losses["total"] == pytest.approx(alone.losses["total"], rel=0.01)
        torch.testing.assert_close(one.render(small_G), alone.render(small_G), rtol=0.02, atol=0.02)


def test_a_known_code_is_recovered_at_35_db(small_G: Generator, small_stats: LatentStats) -> None:
    img = synthesize(small_G, sample_ws(small_G, [5], truncation_psi=0.7))
    stage = ProjectConfig(num_steps=250, patience=250, offset_weight=0.0, prior_weight=0.0, noise_lr=0.0)
    (found,) = invert(small_G, img, Method("nearest", (stage,)), Means(stats=small_stats))
    peak = float(img.max() - img.min())
    error = float((found.render(small_G) - img).square().mean())
    assert 10 * math.log10(peak**2 / error) >= 35


def test_presets_have_the_settings_of_their_sources() -> None:
    (lab,) = PRESETS["lab-projection"].stages
    assert isinstance(lab, ProjectConfig)
    assert (lab.num_steps, lab.lr, lab.is_lr_of_w, lab.noise_weight) == (100, 0.01, True, 5e5)
    assert (lab.terms.squared, lab.terms.perceptual, lab.terms.identity, lab.terms.pixel) == (0.5, 1.0, 0.0, 0.0)
    (swap,) = PRESETS["lab-swap"].stages
    assert isinstance(swap, ProjectConfig)
    assert (swap.terms.squared, swap.terms.perceptual, swap.terms.identity) == (1.0, 2.0, 1.0)
    (paper,) = PRESETS["stylegan2-projector"].stages
    assert isinstance(paper, ProjectConfig)
    assert (paper.num_steps, paper.lr, paper.space, paper.w_noise, paper.noise_weight) == (1000, 0.1, "w", 0.05, 1e5)
    first, second = PRESETS["pti-paper"].stages
    assert isinstance(second, TuneConfig)
    assert (first.num_steps, second.num_steps, second.lr, second.stop_perceptual) == (450, 350, 3e-4, 0.06)
    assert {"optimize", "encoder", "pti", "hybrid"} <= PRESETS.keys()


def test_rows_of_edits_are_scaled_to_the_network() -> None:
    assert EDIT_PRESETS["lab-style"].rows(18) == list(range(9, 18))
    assert EDIT_PRESETS["lab-emotion"].rows(18) == list(range(4, 10))
    assert EDIT_PRESETS["lab-emotion"].rows(10) == [2, 3, 4, 5]
    assert RowMove(first=0, last=17, psi=1.0).rows(12) == list(range(12))
    assert (EDIT_PRESETS["lab-style"].psi, EDIT_PRESETS["lab-emotion"].weight) == (0.1, 15.0)


def test_methods_by_name() -> None:
    assert find_method("hybrid") is PRESETS["hybrid"]
    assert find_method("nearest+w+noise") == Method("nearest", REFINEMENTS["w+noise"])
    short = find_method("pti").with_steps(7)
    assert short.stages[-1].num_steps == 7 and short.stages[0] == PRESETS["pti"].stages[0]
    assert find_method("encoder").with_steps(7) == PRESETS["encoder"]
    seeded = find_method("hybrid").with_seed(5).stages[-1]
    assert isinstance(seeded, HybridConfig) and seeded.tune.seed == 5
    for wrong in ("nobody", "nearest+nothing", "nothing+w", "w"):
        with pytest.raises(InputError, match="no method named"):
            find_method(wrong)
    with pytest.raises(InputError, match="weights are tuned last"):
        Method("average", (TuneConfig(), ProjectConfig()))


def test_bad_pictures_are_refused(small_G: Generator, means: Means) -> None:
    with pytest.raises(InputError, match=r"img must be \[N, 3, 16, 16\]"):
        invert(small_G, torch.zeros(1, 3, 8, 8), PRESETS["encoder"], means)
    with pytest.raises(InputError, match="not finite"):
        invert(small_G, torch.full((1, 3, 16, 16), torch.nan), PRESETS["encoder"], means)
    blind = replace(means, face_model=None)
    with pytest.raises(InputError, match="compare features alone"):
        invert(small_G, torch.zeros(1, 3, 16, 16), PRESETS["stylegan2-projector"], blind)
