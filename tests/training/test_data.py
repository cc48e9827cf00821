"""Training pictures: how they are read, split and drawn."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mien.errors import InputError
from mien.training.data import Batches, cap_per_person, check_columns, is_held_out, load_pictures, read_table


def colours(folder: Path, names: list[str], size: tuple[int, int] = (8, 8)) -> None:
    for i, name in enumerate(names):
        PIL.Image.new("RGB", size, (i * 10, 0, 255)).save(folder / name)


def test_pictures_come_with_their_rows(tmp_path: Path) -> None:
    colours(tmp_path, ["b.png", "a.png", "c.png"])
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in ("b.png", "a.png", "c.png"):
            archive.write(tmp_path / name, name)
    (tmp_path / "set.csv").write_text("file,identity,age\nc.png,Cy,40\nb.png,Bo,30.5\ngone.png,No,1\n")
    found = load_pictures(tmp_path / "set.zip", size_px=4)
    assert list(found.names) == ["c.png", "b.png"]
    assert found.pixels.shape == (2, 3, 4, 4)
    assert found.pixels[:, 0, 0, 0].tolist() == [20, 0]  # red tells which picture it is
    assert found.labels["identity"].tolist() == ["Cy", "Bo"]
    assert found.labels["age"].tolist() == [40.0, 30.5]


def test_wide_pictures_are_cut_in_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = 255
    PIL.Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (load_pictures(tmp_path, size_px=4).pixels == 255).all()


def test_the_cache_holds_the_same_pixels(tmp_path: Path) -> None:
    folder, cache = tmp_path / "set", tmp_path / "cache"
    folder.mkdir()
    colours(folder, ["a.png", "b.png"])
    first = load_pictures(folder, size_px=8, cache=cache)
    again = load_pictures(folder, size_px=8, cache=cache)
    assert len(list(cache.iterdir())) == 1
    assert (first.pixels == again.pixels).all() and list(first.names) == list(again.names)


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data at"):
        load_pictures(tmp_path / "absent.zip", size_px=8)
    with pytest.raises(InputError, match="no pictures in"):
        load_pictures(tmp_path, size_px=8)
    (tmp_path / "empty.csv").write_text("file\n")
    with pytest.raises(InputError, match="has no rows"):
        read_table(tmp_path / "empty.csv")


def test_a_table_that_cannot_serve_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    colours(folder, ["a.png"])
    for text, message in [
        ("name,age\na.png,3\n", "no column 'file'"),
        ("file,age\nb.png,3\n", "lists none of the pictures"),
        ("file,age\na.png\n", "row 2 has 1 values for 2 columns"),
    ]:
        folder.with_suffix(".csv").write_text(text)
        with pytest.raises(InputError, match=message):
            load_pictures(folder, size_px=4)
    with pytest.raises(InputError, match="cannot read the table"):
        read_table(tmp_path / "absent.csv")
    columns = {"file": np.array(["a"]), "age": np.array(["old"])}
    with pytest.raises(InputError, match=r"'age' of t\.csv holds something else than numbers") as caught:
        check_columns(columns, Path("t.csv"), texts=["file"], numbers=["age"])
    assert caught.value.hint == "each of its rows needs file, age (a number)"


def test_files_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="damaged or no zip"):
        load_pictures(tmp_path / "set.zip", size_px=4)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png cannot be read as a picture"):
        load_pictures(tmp_path, size_px=4)


def test_batches_pass_over_everything_once_an_epoch() -> None:
    batches = Batches(10, 4, seed=3)
    drawn = np.concatenate([batches.at(step).numpy() for step in range(5)])  # two epochs
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


def test_a_batch_depends_on_its_step_alone() -> None:
    fresh, used = Batches(10, 4, seed=3), Batches(10, 4, seed=3)
    for step in range(7):
        used.at(step)
    assert fresh.at(6).tolist() == used.at(6).tolist()
    assert Batches(100, 50, seed=4).at(0).tolist() != Batches(100, 50, seed=3).at(0).tolist()
    with pytest.raises(InputError, match="at least one item"):
        Batches(0, 4)


def test_the_best_pictures_of_a_person_are_kept() -> None:
    who = np.array(["a", "a", "b", "a"])
    assert cap_per_person(who, 2, prefer=np.array([1.0, 3.0, 0.0, 2.0])).tolist() == [False, True, True, True]
    assert cap_per_person(who, 1).tolist() == [True, False, True, False]


KEPT_OUT = [f"person_{i}" for i in (8, 30, 47, 58)]


def test_people_are_kept_out_by_name_for_good() -> None:
    assert [name for name in map("person_{}".format, range(60)) if is_held_out(name)] == KEPT_OUT
