"""`mien pairs fit`, `score`, `clean` and the labels' CSV, on tiny networks: files, reports, a kill, clear refusals."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.settings import DEFAULT_NETWORK
from mien.training.pair_labels import PairLabel, PairLabels, load_pair_labels, save_pair_labels
from mien.training.quality import load_quality

from .test_pairs import write_toon

pytest.importorskip("webdataset")

NUM = 30


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["pairs", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def verdict(key: str) -> str:
    return "good" if int(key.removeprefix("seed-")) % 2 else "bad"


@pytest.fixture
def pairs(bundle: Path, tmp_path: Path) -> Path:
    toon = write_toon(tmp_path / "toon.safetensors")
    code, said = run(
        "make", "--target", toon, "--num", NUM, "--chunk", 20, "--no-filter", "--outdir", tmp_path / "pairs"
    )
    assert code == 0, said
    return tmp_path / "pairs"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    keys = [f"seed-{i}" for i in range(NUM)]
    save_pair_labels(PairLabels({key: PairLabel(key, verdict(key)) for key in keys}), tmp_path / "mine.csv")
    return tmp_path / "mine.csv"


def test_from_labels_to_clean_pairs(pairs: Path, table: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn.linear_model")
    code, said = run("label", pairs, "--csv", table)
    assert code == 0 and "30 labels added, 30 in all" in said, said
    judge = tmp_path / "judge.safetensors"
    code, said = run("fit", pairs, "--out", judge)
    assert code == 0 and str(judge) in said, said
    report = json.loads(judge.with_suffix(".json").read_text())
    assert report["good"] == report["bad"] == 15 and len(report["precision"]) == 6
    assert load_quality(judge).facts["labels"] == NUM and "<!doctype html>" in judge.with_suffix(".html").read_text()

    code, said = run("score", pairs, "--judge", judge, "--out", tmp_path / "scores.csv")
    assert code == 0, said
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = [float(row["quality"]) for row in rows]
    assert len(rows) == NUM and values == sorted(values, reverse=True) and set(rows[0]) >= {"age", "gender", "skin"}

    out = tmp_path / "good"
    code, said = run("clean", pairs, "--judge", judge, "--keep", 0.6, "--out", out)
    assert code == 0 and "report.json" in said, said
    report = json.loads((out / "report.json").read_text())
    assert sum(report["kept"].values()) == 18 and report["threshold"] == values[17]
    assert (out / "report.html").is_file() and list((out / "pictures").glob("seed-*.png"))


def test_labels_go_out_and_strangers_do_not_come_in(pairs: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    code, said = run("label", pairs, "--export", out)
    assert code == 2 and "cannot read the labels" in said
    run("label", pairs, "--csv", table)
    code, said = run("label", pairs, "--export", out)
    assert code == 0 and load_pair_labels(out).judged() == load_pair_labels(table).judged()
    save_pair_labels(PairLabels({"seed-77": PairLabel("seed-77", "good")}), table)
    code, said = run("label", pairs, "--csv", table)
    assert code == 2 and "1 of the labels are of other pairs, seed-77 for one" in said
    assert len(load_pair_labels(pairs / "labels.csv")) == NUM


def test_wrong_use(pairs: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    code, said = run("clean", pairs, "--out", out)
    assert code == 2 and "either a share to keep or a threshold" in said
    code, said = run("clean", pairs, "--keep", 0.5, "--out", out)
    assert code == 2 and f"no judge of pairs comes with {DEFAULT_NETWORK}" in said and not out.exists()
    code, said = run("clean", pairs, "--keep", 0.5, "--judge", table, "--out", out)
    assert code == 1 and "holds no judge of quality" in said
    code, said = run("label", tmp_path)
    assert code == 2 and "no pairs in" in said
    code, said = run("fit", pairs, "--out", tmp_path / "judge.safetensors")
    assert code == 2 and "cannot read the labels" in said
    save_pair_labels(PairLabels({f"seed-{i}": PairLabel(f"seed-{i}", "good") for i in range(50)}), pairs / "labels.csv")
    code, said = run("fit", pairs, "--out", tmp_path / "judge.safetensors")
    assert code == 2 and "20 labels in" in said and "are of pairs that are not there" in said
    code, said = run("fit", pairs, "--out", tmp_path / "judge.pt")
    assert code == 2 and "does not end in .safetensors" in said


@pytest.mark.slow
def test_a_kill_while_labelling_loses_nothing(pairs: Path) -> None:
    mien = [sys.executable, "-c", "from mien.app.cli import main; main()", "pairs", "label", str(pairs), "--random"]
    asked: list[str] = []
    for num in (4, 3):
        with subprocess.Popen([*mien, "--port", "0"], stdout=subprocess.PIPE, text=True, env=os.environ) as process:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            with urllib.request.urlopen(address) as answer:
                word = answer.read().decode().split('word = "')[1].split('"')[0]
            for _ in range(num):
                with urllib.request.urlopen(f"{address}now") as answer:
                    asked.append(json.load(answer)["key"])
                body = json.dumps({"key": asked[-1], "label": "good"}).encode()
                request = urllib.request.Request(f"{address}label", body, {"X-Mien-Word": word})
                urllib.request.urlopen(request).close()
            process.send_signal(signal.SIGKILL)
            time.sleep(0.1)
    assert len(set(asked)) == 7 and list(load_pair_labels(pairs / "labels.csv").rows) == asked
