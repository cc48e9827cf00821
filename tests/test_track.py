"""What is reported can be read back where it was written: JSON lines, TensorBoard's files, MLflow's stores."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import PIL.Image
import pytest

from mien.errors import Cancelled, InputError, MissingExtraError
from mien.report import Step
from mien.track import About, follow, jsonl, mlflow, tee, tensorboard


def test_tee_tells_everyone_in_order() -> None:
    heard: list[str] = []
    tee(lambda _: heard.append("first"), lambda _: heard.append("second"))(Step("work", 1, 2))
    assert heard == ["first", "second"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_numbers_and_pictures_reach_tensorboard(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs mien[track]")
    PIL.Image.new("RGB", (3, 2), (255, 0, 0)).save(tmp_path / "samples.png")
    with tensorboard(tmp_path / "events") as sink:
        sink(Step("gan", 25, 100, {"loss/G": 0.5}, {"samples": tmp_path / "samples.png"}))
    read = events.EventAccumulator(str(tmp_path / "events")).Reload()
    (scalar,) = read.Scalars("gan/loss/G")
    assert (scalar.step, scalar.value) == (25, 0.5)
    (image,) = read.Images("gan/samples")
    assert (image.step, image.width, image.height) == (25, 3, 2)


def test_without_tensorboard_the_extra_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError) as caught, tensorboard(tmp_path):
        pass
    assert "mien[track]" in caught.value.hint


# ---- JSON lines, and places by name ---------------------------------------------------------------------------------


def test_lines_hold_numbers_and_names_of_files(tmp_path: Path) -> None:
    for number in (1, 2):  # a run that goes on appends
        with jsonl(tmp_path / "run" / "steps.jsonl") as sink:
            sink(Step("adapt", number, 9, {"loss": 0.5}, {"samples": tmp_path / "a.png"}))
            sink(Step("adapt", number, 9))
    lines = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0] == {
        "stage": "adapt", "step": 1, "of": 9, "loss": 0.5, "pictures": {"samples": str(tmp_path / "a.png")}
    }  # fmt: skip


def test_places_are_named(tmp_path: Path) -> None:
    about = About("work", tmp_path / "run")
    with follow(["jsonl", f"jsonl:{tmp_path / 'other.jsonl'}"], about) as tell:
        tell(Step("work", 1, 1, {"x": 1.0}))
    assert (tmp_path / "run" / "steps.jsonl").read_text() == (tmp_path / "other.jsonl").read_text() != ""
    with follow([], about) as tell:
        tell(Step("work", 1, 1, {"x": 1.0}))
    with pytest.raises(InputError, match="nothing can be tracked with 'wandb'"), follow(["wandb:x"], about):
        pass


# ---- MLflow, with a store that can be lost --------------------------------------------------------------------------


class Lost(Exception):
    error_code = "INTERNAL_ERROR"


class Refused(Exception):
    error_code = "INVALID_PARAMETER_VALUE"


class Store:
    """What `MlflowClient` is to us; it can be away."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.away = threading.Event()
        self.asked = threading.Event()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.asked.set()
            if self.away.is_set():
                raise Lost(f"no way to {name}\nand many lines more")
            return getattr(type(self), f"do_{name}")(self, *args, **kwargs)

        return call

    def do_get_experiment_by_name(self, name: str) -> Any:
        return None

    def do_create_experiment(self, name: str, artefacts: str | None) -> str:
        return name

    def do_create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        run_id = str(len(self.runs))
        self.runs[run_id] = {
            "name": run_name,
            "tags": tags,
            "params": {},
            "metrics": [],
            "files": [],
            "status": "RUNNING",
        }
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def do_update_run(self, run_id: str, status: str) -> None:
        if run_id not in self.runs:
            raise Refused("no such run")
        self.runs[run_id]["status"] = status

    def do_log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        self.runs[run_id]["metrics"] += [(m.key, m.value, m.step) for m in metrics]
        self.runs[run_id]["params"] |= {p.key: p.value for p in params}

    def do_log_artifact(self, run_id: str, path: str, folder: str) -> None:
        if not Path(path).is_file():
            raise Refused("no such file")
        self.runs[run_id]["files"].append((folder, Path(path).name))

    def do_set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"] = status


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    pytest.importorskip("mlflow.entities", reason="needs mien[track]")
    found = Store()
    monkeypatch.setattr("mien.track._client", lambda uri: found)
    monkeypatch.setattr("mien.track.RETRY_S", 0.02)
    monkeypatch.setattr("mien.track.GIVE_UP_S", 5.0)
    return found


def test_a_run_is_written_down_whole(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    about = About("adapt", tmp_path / "run", {"lr": 0.001}, {"commit": "abc"})
    with mlflow("http://store", about) as sink:
        for i in range(1, 501):
            sink(Step("adapt", i, 500, {"loss/G": 1 / i, "gap": float("nan")}))
        sink(Step("adapt", 500, 500, {}, {"samples": tmp_path / "a.png"}, {"weights": tmp_path / "a.png"}))
    (run,) = store.runs.values()
    assert run["metrics"] == [("adapt/loss/G", 1 / i, i) for i in range(1, 501)]  # in order; what is no number is not
    assert run["params"] == {"lr": "0.001"} and run["tags"] == {"commit": "abc"} and run["name"] == "adapt run"
    assert run["files"] == [("samples", "a.png"), ("weights", "a.png")] and run["status"] == "FINISHED"


def test_a_run_that_goes_on_is_the_same_run(store: Store, tmp_path: Path) -> None:
    about = About("adapt", tmp_path)
    with pytest.raises(Cancelled), mlflow("http://store", about) as sink:
        sink(Step("adapt", 1, 2, {"x": 1.0}))
        raise Cancelled("stopped")
    assert store.runs["0"]["status"] == "KILLED"
    with mlflow("http://store", about) as sink:
        sink(Step("adapt", 2, 2, {"x": 2.0}))
    assert len(store.runs) == 1 and [step for _, _, step in store.runs["0"]["metrics"]] == [1, 2]
    with pytest.raises(ZeroDivisionError), mlflow("http://other", about):
        raise ZeroDivisionError
    assert store.runs["1"]["status"] == "FAILED"  # another store, another run
    store.runs.clear()
    with mlflow("http://other", about):
        pass
    assert store.runs["0"]["status"] == "FINISHED"  # a store that knows nothing of it


def test_a_lost_store_is_waited_for(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store.away.set()
    with mlflow("http://store", About("adapt", tmp_path)) as sink:
        for i in range(3):
            sink(Step("adapt", i, 3, {"x": float(i)}))
        assert store.asked.wait(5)
        store.away.clear()
    assert [value for _, value, _ in store.runs["0"]["metrics"]] == [0, 1, 2]
    assert caplog.text.count("is lost, the run goes on without it: no way to get_experiment_by_name") == 1
    assert "many lines" not in caplog.text and "is back" in caplog.text


def test_a_store_that_stays_away_stops_nothing(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.track.GIVE_UP_S", 0.2)
    store.away.set()
    with follow(["mlflow:http://store", "jsonl"], About("adapt", tmp_path)) as tell:
        tell(Step("adapt", 1, 1, {"x": 1.0}))
    assert "missed the last 3 reports" in caplog.text  # its beginning, its number, its end
    assert json.loads((tmp_path / "steps.jsonl").read_text())["x"] == 1


def test_a_parcel_that_is_refused_holds_up_no_other(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mlflow("http://store", About("adapt", tmp_path)) as sink:
        sink(Step("adapt", 1, 1, {"x": 1.0}, {"samples": tmp_path / "none.png"}))
    assert "did not take something: no such file" in caplog.text
    assert store.runs["0"]["metrics"] and store.runs["0"]["status"] == "FINISHED"


def test_without_mlflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(MissingExtraError, match="MLflow is not installed"), mlflow("http://x", About("a", tmp_path)):
        pass


# ---- MLflow itself --------------------------------------------------------------------------------------------------

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def told(uri: str, folder: Path) -> Any:
    """Tell MLflow of a small run and return what it holds of it."""
    from mlflow.tracking import MlflowClient

    folder.parent.mkdir(exist_ok=True)
    PIL.Image.new("RGB", (3, 2)).save(folder.parent / "000001.png")
    (folder.parent / "weights.safetensors").write_bytes(b"12345")
    with follow([f"mlflow:{uri}" if uri else "mlflow"], About("adapt", folder, {"lr": 0.5}, {"data": "d1"})) as tell:
        for i in (1, 2, 3):
            tell(Step("adapt", i, 3, {"loss/G": 1 / i, "ada/p": 0.1}, {"samples": folder.parent / "000001.png"}))
        tell(Step("adapt", 3, 3, files={"weights": folder.parent / "weights.safetensors"}))
    held = json.loads((folder / "mlflow.json").read_text())
    client = MlflowClient(tracking_uri=held["uri"])
    run = client.get_run(held["run_id"])
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.5"} and run.data.tags["data"] == "d1"
    history = client.get_metric_history(held["run_id"], "adapt/loss/G")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    kept = {f.path: f.file_size for k in ("samples", "weights") for f in client.list_artifacts(held["run_id"], k)}
    assert kept["weights/weights.safetensors"] == 5 and kept["samples/000001.png"] > 0
    return held


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.usefixtures("quiet")
def test_a_local_store_needs_no_server(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy", reason="needs mien[track]")
    held = told("", tmp_path / "runs" / "toon")
    assert held["uri"].endswith("runs/mlflow.db") and (tmp_path / "runs" / "mlflow.db").is_file()
    assert list((tmp_path / "runs" / "mlartifacts").rglob("weights.safetensors"))
    with pytest.raises(InputError, match="MLflow cannot use nowhere://x"):
        told("nowhere://x", tmp_path / "runs" / "toon")


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path, quiet: None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real server of MLflow, with its address."""
    pytest.importorskip("flask", reason="needs mlflow with its server")
    pytest.importorskip("mlflow.server", reason="needs mlflow with its server")
    number = port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(number), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    command += ["--artifacts-destination", (tmp_path / "kept").as_uri()]
    with open(tmp_path / "server.log", "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | QUIET, start_new_session=True)
    uri, deadline = f"http://127.0.0.1:{number}", time.monotonic() + 240
    try:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"{uri}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail((tmp_path / "server.log").read_text()[-2000:])
        yield uri, process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")
def test_a_real_server_holds_the_run_and_may_be_lost(
    server: tuple[str, subprocess.Popen[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri, process = server
    told(uri, tmp_path / "runs" / "toon")
    assert list((tmp_path / "kept").rglob("weights.safetensors"))
    monkeypatch.setattr("mien.track.GIVE_UP_S", 8.0)
    about = About("adapt", tmp_path / "runs" / "other")
    with follow([f"mlflow:{uri}", "jsonl"], about) as tell:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        tell(Step("adapt", 1, 1, {"x": 1.0}))
    assert "is lost, the run goes on without it" in caplog.text and "missed the last" in caplog.text
    assert json.loads((about.folder / "steps.jsonl").read_text())["x"] == 1
