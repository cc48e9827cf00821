"""A short storm of kills by `bench/kills.py`: nothing is lost, double or left."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="needs the extra jobs")

KILLS = Path(__file__).resolve().parents[3] / "bench" / "kills.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_nothing_is_lost_when_everything_is_killed(store: str, tmp_path: Path) -> None:
    if store == "redis":
        pytest.importorskip("redis", reason="needs the extra jobs")
        if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
            pytest.skip("no redis-server")
    storm = ["--toy", "--minutes", "0.3", "--between", "0.5", "2", "--pause", "1", "--patience", "300"]
    out = tmp_path / "kills.json"
    command = [sys.executable, str(KILLS), *storm, "--store", store, "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    report = json.loads(out.read_text())
    assert report["confirmed"] <= report["delivered"] > 0 and report["kills"]
    assert not any(report[name] for name in ("lost", "twice", "not_done", "jobs_with_pictures_left"))
