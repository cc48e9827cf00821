"""Commands on people who do not exist: pictures, the style table, a walk as a video."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mien.app.studio import Studio
from mien.inversion.code import Inversion, save_inversion
from mien.nets import stylegan1, stylegan2, stylegan3
from mien.nets.stylegan2 import Generator
from mien.weights.load import save_generator

from ..conftest import pixels, printed

pytestmark = pytest.mark.usefixtures("bundle")
SIDE, GAP = 16, 4  # px, of the tiny network and of a grid


@pytest.fixture
def loud(tmp_path: Path) -> Path:
    """A generator whose noise is seen, with three classes."""
    torch.manual_seed(0)
    kwargs = dict(mapping_kwargs=dict(num_layers=1), synthesis_kwargs=dict(channel_base=256, channel_max=8))
    G = Generator(8, 3, 8, 16, 3, **kwargs)
    for block in G.synthesis.blocks():
        for layer in block.layers():
            layer.noise_strength.data.fill_(0.5)
    save_generator(G, tmp_path / "loud.safetensors")
    return tmp_path / "loud.safetensors"


def test_noise_is_chosen_and_random_noise_repeats_by_seed(loud: Path, tmp_path: Path) -> None:
    def made(name: str, *args: object) -> np.ndarray:
        printed("generate", "--network", loud, "--seeds", 7, "--classes", 1, "--outdir", tmp_path / name, *args)
        return pixels(tmp_path / name / "seed7_class1.png")

    const, none = made("a"), made("b", "--noise-mode", "none")
    random, again = made("c", "--noise-mode", "random"), made("d", "--noise-mode", "random")
    other = made("e", "--noise-mode", "random", "--seed", 1)
    assert np.array_equal(random, again)
    for x, y in ((const, none), (const, random), (none, random), (random, other)):
        assert not np.array_equal(x, y)
    wrong = printed("generate", "--seeds", 1, "--noise-mode", "pink", "--outdir", tmp_path, code=2)
    assert "no noise mode 'pink'" in wrong and "const, random, none" in wrong


def test_every_seed_in_every_class(loud: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed("generate", "--network", loud, "--seeds", "1,2", "--classes", "0,2", "--outdir", out)
    names = [f"seed{seed}_class{kind}.png" for seed in (1, 2) for kind in (0, 2)]
    assert sorted(path.name for path in out.iterdir()) == names
    assert not np.array_equal(pixels(out / names[0]), pixels(out / names[1]))
    for args in ([], ["--classes", 3]):
        said = printed("generate", "--network", loud, "--seeds", 1, *args, "--outdir", out, code=2)
        assert "its classes go from 0 to 2" in said
    assert "without classes" in printed("generate", "--seeds", 1, "--classes", 0, "--outdir", out, code=2)
    assert "needs a class" in printed(
        "style-grid", "--network", loud, "--rows", 1, "--cols", 2, "--layers", 0, "--out", out / "grid.png", code=2
    )


def test_a_style_table_has_its_sources_along_the_edges(tmp_path: Path) -> None:
    out = tmp_path / "table.png"
    printed("generate", "--seeds", "1-5", "--outdir", tmp_path)
    printed("style-grid", "--rows", "1,2", "--cols", "3,4,5", "--layers", "0-2", "--out", out)
    sheet = pixels(out)
    assert sheet.shape == (3 * (SIDE + GAP) + GAP, 4 * (SIDE + GAP) + GAP, 3)

    def tile(row: int, column: int) -> np.ndarray:
        top, left = (GAP + i * (SIDE + GAP) for i in (row, column))
        return sheet[top : top + SIDE, left : left + SIDE]

    assert (tile(0, 0) == 255).all()
    for i, seed in enumerate((3, 4, 5)):
        assert np.array_equal(tile(0, i + 1), pixels(tmp_path / f"seed{seed}.png"))
    for i, seed in enumerate((1, 2)):
        assert np.array_equal(tile(i + 1, 0), pixels(tmp_path / f"seed{seed}.png"))
    printed("mix", "seed:2", "seed:4", "--layers", "0-2", "--out", tmp_path / "mixed.png")
    assert np.array_equal(tile(2, 2), pixels(tmp_path / "mixed.png"))
    assert "go from 0 to 5" in printed("style-grid", "--rows", 1, "--cols", 2, "--layers", "9-", "--out", out, code=2)


def test_a_walk_begins_at_its_first_person_and_closes(bundle: Path) -> None:
    studio = Studio(device="cpu")
    people = [studio.seed_code(seed) for seed in (1, 2, 3)]
    frames = [np.asarray(image).astype(int) for image in studio.walk(people, 30)]
    assert len(frames) == 30
    for i, person in enumerate(people):
        assert np.abs(frames[10 * i] - np.asarray(studio.picture(person))).max() <= 1
    steps = [np.abs(a - b).mean() for a, b in zip(frames, [*frames[1:], frames[0]], strict=True)]
    assert steps[-1] < 2 * max(steps[:-1]), "the last step, to the first frame, is no jump"


def test_interpolate_writes_a_video_of_seeds_and_codes(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs the extra video")
    studio = Studio(device="cpu")
    noise = tuple(torch.zeros(h, w) for h, w in studio.G.synthesis.noise_shapes())
    save_inversion(
        Inversion(ws=studio.seed_code(9).ws, noise=noise, network=studio.digest), tmp_path / "anna.safetensors"
    )
    out = tmp_path / "walk.mp4"
    printed("interpolate", tmp_path / "anna.safetensors", "--seeds", "1,2", "--frames", 9, "--fps", 5, "--out", out)
    with av.open(str(out)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 9


@pytest.mark.parametrize("family", [stylegan1, stylegan2, stylegan3], ids=lambda module: module.__name__[-9:])
def test_every_family_of_generators(family: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    G = family.Generator(8, 0, 8, 16, 3, synthesis_kwargs=dict(channel_base=128, channel_max=8))
    save_generator(G, tmp_path / "G.safetensors")
    options = ["--network", tmp_path / "G.safetensors", "--precision", "bf16"]
    printed("generate", "--seeds", "1-2", "--noise-mode", "random", "--outdir", tmp_path / "people", *options)
    assert len({path.read_bytes() for path in (tmp_path / "people").iterdir()}) == 2
    printed("style-grid", "--rows", 1, "--cols", 2, "--layers", "0-3", "--out", tmp_path / "table.png", *options)
    studio = Studio(tmp_path / "G.safetensors", device="cpu")
    assert len(list(studio.walk([studio.seed_code(1), studio.seed_code(2)], 3))) == 3


def test_wrong_walks_are_refused_before_any_work(tmp_path: Path) -> None:
    out = tmp_path / "walk.mp4"
    assert "nobody to walk to" in printed("interpolate", "--out", out, code=2)
    assert "does not end in .mp4" in printed("interpolate", "--seeds", 1, "--out", tmp_path / "walk.gif", code=2)
    assert "no code at" in printed("interpolate", tmp_path / "nobody.safetensors", "--out", out, code=2)
    save_inversion(Inversion(ws=torch.zeros(2, 8), network="f" * 64), tmp_path / "b.safetensors")
    assert "another generator" in printed("interpolate", tmp_path / "b.safetensors", "--out", out, code=2)
    printed("interpolate", "--seeds", 1, "--frames", 0, "--out", out, code=2)
    assert not out.exists()
