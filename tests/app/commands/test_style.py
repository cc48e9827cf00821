"""mien style: the table of people and styles, photos with the change put back, and another generator's drawing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mien.app.studio import Studio
from mien.inversion.code import save_inversion
from mien.nets.stylegan2 import Generator
from mien.weights.load import load_generator, save_generator

from ..conftest import pixels, printed

pytestmark = pytest.mark.usefixtures("bundle")
QUICK = ("--method", "encoder", "--device", "cpu")


@pytest.fixture
def related(bundle: Path, tmp_path: Path) -> Path:
    """The bundled generator after a little fine-tuning."""
    torch.manual_seed(1)
    G = load_generator(bundle / "faces-64.safetensors")
    assert isinstance(G, Generator)
    for p in G.synthesis.parameters():
        p.data += 0.3 * p.data.std(correction=0) * torch.randn_like(p)
    save_generator(G, tmp_path / "art.safetensors")
    return tmp_path / "art.safetensors"


def test_table_has_a_row_for_every_face_and_a_column_for_every_style(photo: Path, tmp_path: Path) -> None:
    table, outdir = tmp_path / "table.png", tmp_path / "made"
    styles = ("seed:1", "seed:2", "seed:3")
    made = printed("style", photo, *styles, "--photo", "seed:4", "--out", table, "--outdir", outdir, *QUICK).split()
    files = [outdir / f"{name}-seed{i}.png" for name in ("two", "seed4") for i in (1, 2, 3)]
    assert made == [str(path) for path in (*files, table)]
    whole = pixels(table)
    assert whole.shape[1] > 5 * 128 and 4 * 128 < whole.shape[0] < 4 * 128 + 80  # styles, two faces, seed 4
    before, after = pixels(photo), pixels(files[0])
    changed = np.abs(after - before).max(axis=2) > 0
    assert changed[:, :100].any() and changed[:, 100:].any()
    assert not changed[0, 0]


def test_psi_one_keeps_the_photo_and_rows_are_counted_in_18(photo: Path, tmp_path: Path) -> None:
    printed("style", photo, "seed:1", "--psi", 1, "--outdir", tmp_path / "a", *QUICK)
    assert np.abs(pixels(tmp_path / "a" / "two-seed1.png") - pixels(photo)).max() <= 1
    printed("style", "seed:2", "seed:1", "--psi", 0, "--layers", "0-", "--outdir", tmp_path / "b", *QUICK)
    taken = Studio().seed_code(1)
    assert np.array_equal(pixels(tmp_path / "b" / "seed2-seed1.png"), np.asarray(Studio().picture(taken)).astype(int))
    unfit = printed("style", "seed:2", "seed:1", "--layers", "0", "--outdir", tmp_path / "c", code=2)
    assert "stands at 0 of 18" in unfit
    assert "rows 18" in printed("style", "seed:2", "seed:1", "--layers", "18", "--outdir", tmp_path / "c", code=2)


def test_colour_is_kept_or_taken(tmp_path: Path) -> None:
    for flag in ("--keep-colour", "--take-colour"):
        printed("style", "seed:2", "seed:1", flag, "--outdir", tmp_path / flag, *QUICK)
    own = np.asarray(Studio().picture(Studio().seed_code(2))).astype(float)
    kept, taken = (pixels(tmp_path / flag / "seed2-seed1.png") for flag in ("--keep-colour", "--take-colour"))

    def redness(picture: np.ndarray) -> float:
        return float((picture[..., 0] - picture @ [0.2126, 0.7152, 0.0722]).mean())

    assert abs(redness(kept) - redness(own)) < abs(redness(taken) - redness(own))


def test_a_related_generator_draws_the_same_code(photo: Path, related: Path, tmp_path: Path) -> None:
    printed("style", "seed:2", "--by", related, "--outdir", tmp_path / "a", *QUICK)
    code = Studio().seed_code(2)
    drawn = np.asarray(Studio(related).picture(code.with_ws(code.ws).__class__(ws=code.ws))).astype(int)
    assert np.array_equal(pixels(tmp_path / "a" / "seed2-drawn-anew.png"), drawn)
    printed("style", photo, "seed:1", "seed:2", "--by", related, "--out", tmp_path / "both.png", *QUICK)
    assert (tmp_path / "both.png").is_file()


def test_a_stranger_is_refused_before_any_work_unless_forced(tmp_path: Path) -> None:
    torch.manual_seed(7)
    kwargs = dict(channel_base=256, channel_max=8)
    stranger = tmp_path / "stranger.safetensors"
    save_generator(Generator(8, 0, 8, 16, 3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=kwargs), stranger)
    said = printed("style", "seed:2", "--by", stranger, "--outdir", tmp_path / "a", code=2)
    assert "means nothing to the other generator" in said and "fine-tuned" in said
    printed("style", "seed:2", "--by", stranger, "--force", "--outdir", tmp_path / "a", *QUICK)


def test_a_folder_is_its_photos_and_what_fails_does_not_stop_the_others(photo: Path, tmp_path: Path) -> None:
    (photo.parent / "broken.jpg").write_bytes(b"no picture")
    said = printed("style", photo.parent, "seed:1", "--out", tmp_path / "t.png", *QUICK, code=3)
    assert "broken.jpg" in said
    assert (tmp_path / "t.png").is_file()
    (tmp_path / "empty").mkdir()
    assert "no photos in" in printed("style", tmp_path / "empty", "seed:1", "--out", tmp_path / "t.png", code=2)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("seed:1", "--out", "t.png"), "no style"),
        (("seed:1", "seed:2"), "nothing to write"),
        (("seed:1", "seed:2", "seed:2", "--out", "t.png"), "two pictures have the name seed2"),
        (("seed:1", "seed:2", "--preset", "lab", "--out", "t.png"), "no preset named 'lab'"),
        (("seed:1", "seed:2", "--out", "t.jpg"), "does not end in .png"),
        (("seed:1", "missing.png", "--out", "t.png"), "missing.png"),
    ],
)
def test_wrong_use_ends_in_one_word(
    args: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in printed("style", *args, code=2)
    assert not list(tmp_path.glob("t.*"))


def test_a_code_of_another_generator_is_refused(tmp_path: Path, related: Path) -> None:
    save_inversion(Studio(related).seed_code(1), tmp_path / "anna.safetensors")
    said = printed("style", "seed:1", tmp_path / "anna.safetensors", "--out", tmp_path / "t.png", code=2)
    assert "another generator" in said
