"""Labels as CSV there and back, the book that survives a kill, and what to label next."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mien.errors import InputError
from mien.training.active import choose_next, farthest
from mien.training.pair_labels import LabelBook, PairLabel, PairLabels, load_pair_labels, save_pair_labels

ROWS = (
    PairLabel("seed-1", "good", "", {"psi": "0.7", "note": 'a, "b"'}),
    PairLabel("photo-ab12", "bad", "face", {"psi": "", "note": "é"}),
    PairLabel("seed-3", "skip"),
)
LABELS = PairLabels({row.key: row for row in ROWS}, ("judged by eye", "good: one face"))


def test_a_table_and_back(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    save_pair_labels(LABELS, path)
    read = load_pair_labels(path)
    assert list(read.rows) == list(LABELS.rows) and read.notes == LABELS.notes
    assert read.rows["seed-1"] == ROWS[0] and read.rows["photo-ab12"] == ROWS[1]
    assert read.counts() == {"good": 1, "bad": 1, "skip": 1}
    assert read.judged() == {"seed-1": True, "photo-ab12": False}
    save_pair_labels(read, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_what_a_spreadsheet_makes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("\ufefflabel,key\r\nGOOD, seed-1 \r\n\r\nbad,seed-2\r\n".encode())
    assert load_pair_labels(path).judged() == {"seed-1": True, "seed-2": False}


def test_two_tables_make_one() -> None:
    more = PairLabels({"seed-1": PairLabel("seed-1", "bad"), "seed-9": PairLabel("seed-9", "good")}, ("judged by eye",))
    joined = LABELS.joined(more)
    assert joined.judged() == {"seed-1": False, "photo-ab12": False, "seed-9": True} and joined.notes == LABELS.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no table of labels"),
        ("key,reason\nseed-1,x\n", "is no table of labels"),
        ("key,label,label\nseed-1,good,bad\n", "is no table of labels"),
        ("# a note\nkey,label\nseed-1\n", "line 3: 1 cells, not 2"),
        ("key,label\nseed-1,fine\n", "line 2: 'fine' is no label"),
        ("key,label\nseed 1,good\n", "line 2: 'seed 1' is no key of a pair"),
        ("key,label\n../x,good\n", "line 2: '../x' is no key"),
        ("key,label\nseed-1,good\nseed-1,bad\n", "line 3: seed-1 is there twice"),
        ("key,label\n" + "x" * 200_000, "is no CSV"),
    ],
)
def test_bad_tables(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        load_pair_labels(path)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the labels"):
        load_pair_labels(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read the labels"):
        load_pair_labels(tmp_path / "binary.csv")


# ---- The book -------------------------------------------------------------------------------------------------------


def test_a_book_keeps_order_undoes_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    save_pair_labels(LABELS, path)
    with LabelBook(path) as book:
        book.put("seed-7", "good")
        book.put("seed-1", "bad", "face")  # again: now the latest, and what else was in its line stays
        assert load_pair_labels(path).rows["seed-1"] == PairLabel("seed-1", "bad", "face", ROWS[0].facts)
        assert book.undo() == "seed-1"
        assert list(load_pair_labels(path).rows) == ["photo-ab12", "seed-3", "seed-7"]
    with LabelBook(path) as book:
        assert [book.undo() for _ in range(4)] == ["seed-7", "seed-3", "photo-ab12", None]
    assert load_pair_labels(path).notes == LABELS.notes


def test_one_at_a_time(tmp_path: Path) -> None:
    with LabelBook(tmp_path / "labels.csv"), pytest.raises(InputError, match="is being labelled already"):
        LabelBook(tmp_path / "labels.csv").__enter__()
    with LabelBook(tmp_path / "labels.csv") as book:
        assert not book.path.exists()


def test_a_kill_loses_nothing_that_was_said(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    code = f"""
import pathlib
from mien.training.pair_labels import LabelBook
with LabelBook(pathlib.Path({str(path)!r})) as book:
    for i in range(10**6):
        book.put(f"seed-{{i}}", "good")
        print(i, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(60)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout if line.endswith("\n")]
    held = load_pair_labels(path)
    assert set(held.rows) >= {f"seed-{i}" for i in said} and len(held) <= len(said) + 1
    with LabelBook(path) as book:
        book.put("seed-x", "bad")
    assert len(load_pair_labels(path)) == len(held) + 1 and not list(tmp_path.glob("*.part"))


# ---- What to label next ---------------------------------------------------------------------------------------------


def test_the_farthest_from_all_that_were_chosen() -> None:
    points = np.array([[0.0], [1.0], [4.0], [10.0], [11.0]])
    assert farthest(points, np.array([0]), np.arange(1, 5), 3) == [4, 2, 1]
    assert (
        farthest(points, np.array([], int), np.arange(5), 9)[0] == 4
        and len(farthest(points, np.array([0]), np.arange(5), 9)) == 5
    )


def test_rounds_ask_where_the_judge_is_unsure_and_some_at_random() -> None:
    rng = np.random.default_rng(0)
    features, said = rng.normal(size=(500, 3)), rng.random(500)
    is_open = np.arange(500) >= 50
    chosen = choose_next(features, is_open, said, 20)
    assert len(set(chosen)) == 20 and is_open[chosen].all()
    unsure = sorted(np.flatnonzero(is_open), key=lambda row: abs(said[row] - 0.5))[:90]
    assert sum(row in set(map(int, unsure)) for row in chosen) >= 16  # all but the random share
    assert choose_next(features, is_open, said, 20) == chosen != choose_next(features, is_open, said, 20, seed=1)
    assert len(choose_next(features, is_open, None, 20)) == 20
    assert sorted(choose_next(features, np.arange(500) < 3, said, 20)) == [0, 1, 2]
    assert choose_next(features, np.zeros(500, bool), said, 20) == []
