"""The queue in Redis and in PostgreSQL: the same rules, servers that restart, workers that are killed meanwhile."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from mien.app.jobs.queue import Queue, open_queue
from mien.app.jobs.record import ClaimLostError, NoJobError, QueueError, State
from mien.app.settings import JobSettings, Secret
from mien.report import Step

from .test_worker import EDIT, Service, over, storm

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Server(Protocol):
    url: str

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Redis:
    def __init__(self, folder: Path) -> None:
        pytest.importorskip("redis", reason="needs the extra jobs")
        if shutil.which("redis-server") is None:
            pytest.skip("no redis-server")
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = f"redis-server --port {self.port} --dir {self.folder} --appendonly yes --appendfsync always --save ''"
        self.process = subprocess.Popen(command.split(), stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


class Postgres:
    def __init__(self, folder: Path) -> None:
        pytest.importorskip("psycopg", reason="needs the extra jobs")
        if shutil.which("initdb") is None:
            pytest.skip("no PostgreSQL")
        self.folder, self.port = folder / "data", free_port()
        self.url = f"postgresql://mien@127.0.0.1:{self.port}/postgres"
        self.user: dict[str, str] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(folder, "nobody")
            self.user = {"user": "nobody"}
        self.run("initdb", "-U", "mien", "-A", "trust", "-D", str(self.folder))

    def run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False, timeout=100, **self.user)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        log = str(self.folder / "log")
        self.run("pg_ctl", "-D", str(self.folder), "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder), "-m", "immediate", "stop")


@pytest.fixture(params=[Redis, Postgres])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be entered by its user alone
        made = request.param(Path(folder))
        made.start()
        yield made
        made.stop()


@pytest.fixture
def queue(server: Server, tmp_path: Path) -> Iterator[Queue]:
    queue = open_queue(JobSettings(url=Secret(server.url), folder=tmp_path / "unused", lease_s=1.0))
    yield queue
    queue.store.close()


def test_the_rules_are_the_same(queue: Queue) -> None:
    first = queue.submit(EDIT, user="anna", inputs=[b"photo"], key="1", address="bot:", keep_s=0)
    assert queue.submit(EDIT, user="anna", inputs=[b"photo"], key="1") == first
    second = queue.submit(EDIT, user="bert", inputs=[b"other"])
    held = queue.claims.claim("w1")
    assert held is not None and held.id == first.id and queue.status(second.id).position == 1
    queue.claims.step(held, Step("toy", 1, 2), preview=b"half")
    assert queue.preview(queue.get(first.id)) == b"half" and queue.inputs(held) == [b"photo"]
    time.sleep(1.2)
    again = queue.claims.claim("w2")
    assert again is not None and (again.id, again.attempt) == (first.id, 2)
    with pytest.raises(ClaimLostError):
        queue.claims.finish(held, [b"late"])
    done = queue.claims.finish(again, [b"result"])
    assert queue.results(done) == [b"result"]
    with pytest.raises(QueueError, match="not there any more"):
        queue.inputs(done)
    (carried,) = queue.carry("bot", "bot:")
    queue.delivered(carried.id)
    assert queue.get(first.id).user == "" and queue.jobs("anna") == []
    queue.claims.here("w2")
    assert queue.counts() == {"queued": 1, "running": 0, "done": 1, "failed": 0, "cancelled": 0, "workers": 1}
    assert queue.delete_user_data("bert") == 1 and queue.claims.claim("w2") is None
    with pytest.raises(NoJobError):
        queue.get("0" * 32)
    assert queue.store.blobs.jobs(time.time() + 1) == []


def test_two_workers_never_have_one_job(queue: Queue) -> None:
    jobs = [queue.submit(EDIT, user=f"user {i}") for i in range(24)]
    taken: list[str] = []

    def work(name: str) -> None:
        own = open_queue(queue.settings)
        while (held := own.claims.claim(name)) is not None:
            taken.append(held.id)
            own.claims.finish(held, [])
        own.store.close()

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == sorted(job.id for job in jobs)


def test_a_server_that_is_away_is_told(server: Server, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.submit(EDIT, user="anna")
    server.stop()
    with pytest.raises(QueueError, match="the queue's database fails") as err:
        queue.store.look(lambda table: table.fact("x"), patience_s=0.2)
    assert "mien@" not in err.value.message
    server.start()
    assert len(queue.jobs()) == 1


@pytest.mark.timeout(300)
def test_a_server_that_is_killed_while_jobs_are_done(server: Server, tmp_path: Path) -> None:
    service = Service(MIEN_JOBS_URL=server.url, MIEN_JOBS_MAX_PER_USER="50")
    job = service.queue.submit(EDIT, user="anna", inputs=[b"photo"])
    service.start("slow")
    while service.queue.get(job.id).state == State.QUEUED:
        time.sleep(0.05)
    server.stop()
    time.sleep(2)
    server.start()
    assert service.queue.results(over(service.queue, job)) == [b"result of photo"]
    restarts = iter([3, 9])
    began_s = time.monotonic()
    next_s = next(restarts)

    def between() -> None:
        nonlocal next_s
        if time.monotonic() - began_s > next_s:
            server.stop()
            server.start()
            next_s = next(restarts, 10**6)

    storm(service, 15.0, 20, between)
    service.end()
