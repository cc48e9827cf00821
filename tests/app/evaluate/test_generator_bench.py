"""The validation bench on tiny networks: every number is there, the page shows what lies beside it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench"

pytestmark = pytest.mark.usefixtures("bundle")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    spec = importlib.util.spec_from_file_location("mien_generator_bench", BENCH / "generator.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_command_leaves_numbers_and_a_page(
    bench: ModuleType, drawn_sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, run = tmp_path / "out", tmp_path / "run"
    run.mkdir()
    lines = [{"kimg": k, "frechet/held_out": 9.0 - k, "score/real": 0.5} for k in range(3)]
    (run / "stats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    sizes = ["--num=8", "--num-paths=3", "--num-probes=6", "--device=cpu"]
    places = ["--outdir", str(out), "--cache", str(tmp_path / "cache"), "--run-dir", str(run)]
    bench.main(["faces-64", "--data", str(drawn_sets / "faces128.zip"), *sizes, *places])
    report = json.loads((out / "generator.json").read_text())
    assert set(report["distances"]) == {"psi 0.7", "psi 1.0"}
    names = {"frechet/held_out", "kernel/trained", "precision/held_out", "recall/trained", "nearest/samples"}
    assert names <= report["distances"]["psi 1.0"].keys()
    assert report["path_length"] > 0
    assert set(report["directions"]) == {"smile", "age", "yaw"}
    assert all(0 <= score["purity"] <= 1 for score in report["directions"].values())
    said = capsys.readouterr().out
    assert "| frechet/held_out |" in said and "| smile |" in said
    shown = (out / "index.html").read_text()
    assert {path.name for path in out.glob("*.png")} == set(re.findall(r'src="([^"]+)"', shown))
    assert shown.count("<polyline") == 2 + sum(len(s["curves"]) for s in report["directions"].values())
