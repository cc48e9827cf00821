"""Workers: what they do with a job that ends well, badly or not at all; and real processes that are killed."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from mien.app.jobs import worker as worker_module
from mien.app.jobs.queue import Queue, open_queue
from mien.app.jobs.record import Job, State
from mien.app.jobs.supervisor import Supervisor
from mien.app.jobs.worker import Worker, run_requests, scratch_of
from mien.app.settings import JobSettings, Settings, load_settings
from mien.app.studio import Studio
from mien.errors import InputError, MienError
from mien.report import Sink, Step

pytest.importorskip("sqlalchemy", reason="needs the extra jobs")

EDIT = {"op": "change", "operations": [{"op": "edit", "strengths": {"smile": 1.0}}], "method": "encoder"}
Results = tuple[Sequence[bytes], Sequence[str]]


def wait_for(what: Callable[[], bool], timeout_s: float = 200.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < until_s, "it does not happen"
        time.sleep(0.05)


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return open_queue(JobSettings(folder=tmp_path / "queue", lease_s=2.0, timeout_s=60.0, retry_delay_s=0.0))


@contextmanager
def working(queue: Queue, run: Callable[[Job, Sink], Results]) -> Iterator[Worker]:
    worker = Worker(queue, run, name="w", poll_s=0.02)
    thread = threading.Thread(target=worker.serve)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        worker.stop()
        thread.join(200)
        assert not thread.is_alive()


def over(queue: Queue, job: Job) -> Job:
    wait_for(lambda: queue.get(job.id).state.is_over)
    return queue.get(job.id)


# ---- One job ---------------------------------------------------------------------------------------------------------


def test_a_worker_does_jobs(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "TELL_S", 0.0)
    seen: list[tuple[str, int]] = []

    def run(job: Job, on_step: Sink) -> Results:
        for i in range(3):
            on_step(Step("toy", i, 3))
            seen.append((queue.get(job.id).stage, queue.get(job.id).done))
        return [queue.inputs(job)[0].upper()], ["well done"]

    job = queue.submit(EDIT, user="anna", inputs=[b"photo"])
    with working(queue, run):
        done = over(queue, job)
        assert queue.counts()["workers"] == 1
    assert queue.results(done) == [b"PHOTO"] and done.notes == ("well done",) and done.attempt == 1
    assert seen == [("toy", 0), ("toy", 1), ("toy", 2)]


def test_previews_are_shown(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "TELL_S", 0.0)
    monkeypatch.setattr(worker_module, "PREVIEW_S", 0.0)
    shown = []

    def run(job: Job, on_step: Sink) -> Results:
        for i in range(2):
            (tmp_path / "p.png").write_bytes(b"half %d" % i)
            on_step(Step("toy", i, 2, pictures={"preview": tmp_path / "p.png", "none": tmp_path / "absent"}))
            shown.append(queue.preview(queue.get(job.id)))
        return [b"whole"], []

    job = queue.submit(EDIT, user="anna")
    with working(queue, run):
        assert queue.preview(over(queue, job)) is None
    assert shown == [b"half 0", b"half 1"]
    assert [p.read_bytes() for p in (queue.settings.folder / "pictures" / job.id).iterdir()] == [b"whole"]


@pytest.mark.parametrize(
    ("err", "attempts", "message"),
    [
        (InputError("no face found", hint="try another"), 1, "no face found"),
        (MienError("cannot write /secret/place"), 3, "something broke on our side"),
        (ValueError("tg:123 sent portrait.jpg"), 3, "something broke on our side"),
    ],
    ids=["bad input", "a fault", "a defect"],
)
def test_only_faults_are_tried_again(
    err: Exception, attempts: int, message: str, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def run(job: Job, on_step: Sink) -> Results:
        tried.append(job.attempt)
        raise err

    job = queue.submit(EDIT, user="anna")
    with working(queue, run):
        failed = over(queue, job)
    assert (failed.state, failed.message) == (State.FAILED, message)
    assert tried == list(range(1, attempts + 1)) and "portrait" not in caplog.text


def test_a_fault_that_passes_is_not_seen(queue: Queue) -> None:
    def run(job: Job, on_step: Sink) -> Results:
        if job.attempt == 1:
            raise OSError(28, "No space left on device")
        return [b"result"], []

    job = queue.submit(EDIT, user="anna")
    with working(queue, run):
        assert over(queue, job).state == State.DONE


def endless(_job: Job, on_step: Sink) -> Results:
    for i in range(10**9):
        on_step(Step("toy", i, 10**9))
        time.sleep(0.01)
    return [], []


def test_cancel_stops_between_two_steps(queue: Queue) -> None:
    job = queue.submit(EDIT, user="anna")
    with working(queue, endless):
        wait_for(lambda: queue.get(job.id).total > 0)
        assert queue.cancel(job.id).is_cancelling
        assert over(queue, job).state == State.CANCELLED


def test_deleted_while_it_runs(queue: Queue) -> None:
    job = queue.submit(EDIT, user="anna", inputs=[b"photo"])
    with working(queue, endless):
        wait_for(lambda: queue.get(job.id).state == State.RUNNING)
        assert queue.delete_user_data("anna") == 1
        follower = queue.submit(EDIT, user="bert")
        wait_for(lambda: queue.get(follower.id).state == State.RUNNING)
    assert not [path for path in (queue.settings.folder / "pictures").rglob("*") if path.is_file()]


def test_a_job_that_takes_too_long(tmp_path: Path) -> None:
    queue = open_queue(JobSettings(folder=tmp_path / "queue", timeout_s=1.0))
    job = queue.submit(EDIT, user="anna")
    with working(queue, endless):
        failed = over(queue, job)
    assert (failed.state, failed.message, failed.attempt) == (State.FAILED, "the work took longer than 1 s", 1)


def test_a_worker_that_is_told_to_stop_finishes_or_gives_back(queue: Queue) -> None:
    job = queue.submit(EDIT, user="anna")
    worker = Worker(queue, endless, name="w", poll_s=0.02)
    thread = threading.Thread(target=worker.serve)
    thread.start()
    wait_for(lambda: queue.get(job.id).total > 0)
    worker.stop()
    time.sleep(0.3)
    assert thread.is_alive(), "it may finish its job first"
    worker.stop()
    thread.join(200)
    back = queue.get(job.id)
    assert (back.state, back.attempt, back.worker) == (State.QUEUED, 0, "")


# ---- The studio's requests -------------------------------------------------------------------------------------------


def test_requests_are_done_by_the_studio(queue: Queue, bundle: Path, photo: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO, logger="mien")
    run = run_requests(Studio(), queue, Settings(jobs=queue.settings))
    people = queue.submit({"op": "generate", "seeds": [1, 2]}, user="bert")
    edited = queue.submit(EDIT, user="anna", inputs=[photo.read_bytes()])
    broken = queue.submit(EDIT, user="cora", inputs=[b"\x89PNG\r\n\x1a\n nonsense"])
    strange = queue.submit({"op": "change", "operations": "rm -rf"}, user="dora", inputs=[b""])
    with working(queue, run):
        made = queue.results(over(queue, people))
        (result,) = queue.results(over(queue, edited))
        assert over(queue, broken).message.startswith("the file cannot be decoded") or over(queue, broken).message
        assert over(queue, broken).attempt == 1
        assert over(queue, strange).message == "request: operations must be a list"
    with PIL.Image.open(io.BytesIO(result)) as image, PIL.Image.open(photo) as before:
        assert image.size == before.size and "compositeWithTrained" in image.text["XML:com.adobe.xmp"]
    for data in made:
        with PIL.Image.open(io.BytesIO(data)) as image:
            assert image.size == (16, 16) and "/trainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]
    assert "anna" not in caplog.text


def test_previews_of_killed_workers_are_deleted(queue: Queue, bundle: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "queue" / "scratch"
    for name, age_s in (("old", 10_000), ("new", 0)):
        (scratch / name).mkdir(parents=True)
        (scratch / name / "preview.png").write_bytes(b"somebody")
        os.utime(scratch / name, (time.time() - age_s,) * 2)
    run_requests(Studio(), queue, Settings(jobs=queue.settings))
    assert [path.name for path in scratch.iterdir()] == ["new"]


def test_what_a_dead_worker_was_drawing_is_deleted(queue: Queue) -> None:
    """At once by its supervisor, who alone knows that it is dead; the places of others stay."""
    mine = []

    def start(name: str) -> subprocess.Popen[bytes]:
        mine.append(scratch_of(queue.settings, name))
        (mine[-1] / "preview.png").write_bytes(b"somebody")
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"], stdin=subprocess.PIPE)

    other = scratch_of(queue.settings, "another")
    supervisor = Supervisor(queue, 1, start)
    thread = threading.Thread(target=supervisor.serve)
    thread.start()
    wait_for(lambda: len(mine) > 0 and not mine[0].exists())
    supervisor.stop()
    thread.join(200)
    assert other.is_dir() and not any(path.exists() for path in mine)
    assert oct(other.stat().st_mode & 0o777) == oct(other.parent.stat().st_mode & 0o777) == "0o700"


def test_a_blocked_user_gets_nothing(queue: Queue, bundle: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked.txt").write_text("user mallory # spam\n")
    env = {"MIEN_TRUST_BLOCK_LIST": str(tmp_path / "blocked.txt"), "MIEN_JOBS_FOLDER": str(tmp_path / "queue")}
    settings = load_settings(env=env)
    job = queue.submit(EDIT, user="mallory", inputs=[photo.read_bytes()])
    with working(queue, run_requests(Studio(), queue, settings)):
        assert over(queue, job).message == "you cannot use this service"


# ---- Real processes --------------------------------------------------------------------------------------------------

TOY = """
import os, signal, sys, time
from mien.app.jobs import worker
from mien.app.jobs.queue import open_queue
from mien.app.settings import load_settings
from mien.app.jobs.supervisor import work
from mien.report import Step

stage, name = sys.argv[1:3]
queue = open_queue(load_settings().jobs)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def run(job, on_step):
    if stage == "begun":
        die()
    if stage == "hung":
        worker.GRACE_S = 0.0
        time.sleep(3600)
    steps = 2000 if stage == "long" else 10 if stage == "slow" else 3
    for i in range(steps):
        on_step(Step("toy", i, steps))
        time.sleep(0.05)
        if stage == "middle" and i == 1:
            die()
    return [b"result of " + b"".join(queue.inputs(job))], []

def before(kind, method):
    real = getattr(kind, method)
    setattr(kind, method, lambda *args, **kwargs: die())

def after(kind, method):
    real = getattr(kind, method)
    def call(*args, **kwargs):
        if real(*args, **kwargs) is not None:
            die()
    setattr(kind, method, call)

if stage == "claimed":
    after(queue.claims, "claim")
elif stage == "result unwritten":
    before(queue.store.blobs, "put")
elif stage == "result written":
    after(queue.store.blobs, "put")
elif stage == "untold":
    before(queue.claims, "_end")
elif stage == "uncommitted":
    after(queue.claims, "_end")
elif stage == "told":
    after(queue.claims, "finish")
print("ready", flush=True)
work(queue, run, name)
"""
ENVIRONMENT = {"MIEN_JOBS_LEASE_S": "4", "MIEN_JOBS_MAX_ATTEMPTS": "100", "MIEN_JOBS_RETRY_DELAY_S": "0.1"}


class Service:
    """A queue, and workers as processes."""

    def __init__(self, **settings: str) -> None:
        self.env = os.environ | ENVIRONMENT | settings
        self.queue = open_queue(load_settings(env=self.env).jobs)
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, stage: str = "", name: str = "w") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", TOY, stage, name]
        self.started.append(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env
            )
        )
        return self.started[-1]

    def end(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        self.queue.store.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(MIEN_JOBS_FOLDER=str(tmp_path / "queue"))
    yield made
    made.end()


STAGES = ["claimed", "begun", "middle", "result unwritten", "result written", "untold", "uncommitted", "told"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_killed_at_any_stage_loses_and_doubles_nothing(stage: str, service: Service) -> None:
    queue = service.queue
    job = queue.submit(EDIT, user="anna", inputs=[b"photo"], address="bot:1", keep_s=0)
    assert service.start(stage, "victim").wait(200) == -signal.SIGKILL
    is_told = stage == "told"
    assert queue.get(job.id).state == (State.DONE if is_told else State.RUNNING)
    service.start("", "healthy")
    wait_for(lambda: queue.get(job.id).state == State.DONE)
    done = queue.get(job.id)
    assert queue.results(done) == [b"result of photo"] and done.attempt == (1 if is_told else 2)
    assert [each.id for each in queue.carry("bot", "bot:")] == [job.id] and queue.carry("bot2", "bot:") == []
    queue.delivered(job.id)
    assert not [path for path in (queue.settings.folder / "pictures").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_sigterm_lets_the_job_be_finished(service: Service) -> None:
    job = service.queue.submit(EDIT, user="anna", inputs=[b"photo"])
    rest = service.queue.submit(EDIT, user="bert", inputs=[b"photo"])
    process = service.start("slow")
    wait_for(lambda: service.queue.get(job.id).state == State.RUNNING)
    process.terminate()
    assert process.wait(200) == 0
    assert service.queue.get(job.id).state == State.DONE and service.queue.get(rest.id).state == State.QUEUED


@pytest.mark.slow
def test_sigterm_twice_gives_the_job_back(service: Service) -> None:
    job = service.queue.submit(EDIT, user="anna", inputs=[b"photo"])
    process = service.start("long")
    wait_for(lambda: service.queue.get(job.id).state == State.RUNNING)
    process.terminate()
    time.sleep(0.5)
    process.terminate()
    assert process.wait(200) == 0
    assert (service.queue.get(job.id).state, service.queue.get(job.id).attempt) == (State.QUEUED, 0)


@pytest.mark.slow
def test_work_that_does_not_listen_is_ended(tmp_path: Path) -> None:
    service = Service(MIEN_JOBS_FOLDER=str(tmp_path / "queue"), MIEN_JOBS_TIMEOUT_S="1")
    job = service.queue.submit(EDIT, user="anna", inputs=[b"photo"])
    assert service.start("hung").wait(200) == worker_module.HUNG
    assert service.queue.get(job.id).message == "the work took longer than 1 s"
    service.end()


@pytest.mark.slow
def test_a_worker_whose_supervisor_dies_stops(service: Service) -> None:
    process = service.start()
    assert process.stdout is not None and process.stdin is not None
    process.stdout.readline()
    process.stdin.close()
    process.stdin = None
    assert process.wait(200) == 0


@pytest.mark.slow
def test_a_database_that_is_locked_for_a_while(service: Service) -> None:
    import sqlite3

    job = service.queue.submit(EDIT, user="anna", inputs=[b"photo"])
    service.start("slow")
    wait_for(lambda: service.queue.get(job.id).state == State.RUNNING)
    other = sqlite3.connect(service.queue.settings.folder / "queue.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    time.sleep(4)
    other.execute("ROLLBACK")
    other.close()
    assert over(service.queue, job).state == State.DONE


def storm(service: Service, seconds: float, num: int, between: Callable[[], None] = lambda: None) -> None:
    """Kill workers at random while three users' jobs are done; then everything must be there, once."""
    queue, rng = service.queue, random.Random(0)
    jobs = [
        queue.submit(EDIT, user=f"user {i % 3}", inputs=[b"photo %d" % i], address="bot:", key=str(i), keep_s=0)
        for i in range(num)
    ]
    supervisor = Supervisor(queue, 2, lambda name: service.start("", name))
    thread = threading.Thread(target=supervisor.serve)
    thread.start()
    until_s, results = time.monotonic() + seconds, []
    while time.monotonic() < until_s:
        time.sleep(rng.uniform(0.2, 1.0))
        living = [process for process in service.started if process.poll() is None]
        if living and rng.random() < 0.6:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(living).pid, signal.SIGKILL)
        between()
        results += deliver(queue)
    until_s = time.monotonic() + 90
    while len(results) < num and time.monotonic() < until_s:
        time.sleep(0.2)
        results += deliver(queue)
    supervisor.stop()
    thread.join(200)
    assert sorted(results) == sorted(b"result of photo %d" % i for i in range(num))
    assert {queue.get(job.id).state for job in jobs} == {State.DONE}


def deliver(queue: Queue) -> list[bytes]:
    results = []
    for job in queue.carry("bot", "bot:"):
        results += queue.results(job)
        queue.delivered(job.id)
    return results


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_storm_of_kills(tmp_path: Path) -> None:
    service = Service(MIEN_JOBS_FOLDER=str(tmp_path / "queue"), MIEN_JOBS_MAX_PER_USER="50")
    storm(service, 30.0, 40)
    assert not [path for path in (tmp_path / "queue" / "pictures").rglob("*") if path.is_file()]
    service.end()


@pytest.mark.slow
def test_the_command_does_a_job_and_stops(tmp_path: Path, photo: Path) -> None:
    env = os.environ | {"MIEN_JOBS_FOLDER": str(tmp_path / "queue")}
    queue = open_queue(load_settings(env=env).jobs)
    job = queue.submit(EDIT, user="anna", inputs=[photo.read_bytes()])
    people = queue.submit({"op": "generate", "seeds": [1]}, user="bert")
    command = [sys.executable, "-c", "from mien.app.cli import main; main()"]
    process = subprocess.Popen([*command, "worker"], env=env)
    wait_for(lambda: queue.get(people.id).state.is_over and queue.get(job.id).state.is_over, 200)
    shown = subprocess.run([*command, "jobs", "list", "--json"], env=env, capture_output=True, text=True, check=True)
    process.terminate()
    assert process.wait(200) == 0
    rows = {row["id"]: row for row in json.loads(shown.stdout)["jobs"]}
    assert rows[people.id]["state"] == "done" and "anna" not in shown.stdout
    assert rows[job.id]["error"] == "no face found in the photo", "a drawing is no face"
