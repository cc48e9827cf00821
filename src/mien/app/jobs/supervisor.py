"""`mien worker`: keeps a number of workers alive, each in a process of its own.

When one dies its job is taken back at once, not only when the lease ends, and another is started. A worker whose
supervisor dies notices it by its standard input, which ends, and stops in good order.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mien.app.jobs.queue import Queue, open_queue
from mien.app.jobs.worker import Run, Worker
from mien.app.settings import load_settings
from mien.errors import MienError

__all__ = ["Supervisor", "child", "serve"]

CODE = "from mien.app.jobs.supervisor import child; child()"
MOST_WAIT_S, HEALTHY_S = 30.0, 60.0

logger = logging.getLogger(__name__)


@dataclass
class _Place:
    """A place for one worker."""

    number: int
    name: str = ""
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    num_deaths: int = 0
    ready_s: float = 0.0  # no earlier is another one started


class Supervisor:
    """Keeps workers alive.

    Args:
        queue: whose jobs they do.
        num: of workers.
        start: starts one of a name, with a pipe on its standard input.
    """

    def __init__(self, queue: Queue, num: int, start: Callable[[str], subprocess.Popen[bytes]]) -> None:
        self._queue, self._start = queue, start
        self._places = [_Place(i) for i in range(num)]
        self._is_stopping = False  # a plain value: a signal's handler may not wait for a lock

    def stop(self) -> None:
        """Let the workers finish; told twice, let them give their jobs back."""
        self._is_stopping = True
        for process in self._living():
            process.terminate()

    def _living(self) -> list[subprocess.Popen[bytes]]:
        return [p.process for p in self._places if p.process is not None and p.process.poll() is None]

    def serve(self) -> None:
        """Keep the workers alive until `stop`, then wait for them."""
        while not self._is_stopping:
            for place in self._places:
                self._tend(place)
            time.sleep(0.2)
        until_s = time.monotonic() + self._queue.settings.drain_s + 30
        while self._living() and time.monotonic() < until_s:
            time.sleep(0.1)
        for process in self._living():
            process.kill()
        for place in self._places:
            if place.process is not None and place.process.wait() != 0:
                self._bury(place)
            self._clear(place)

    def _clear(self, place: _Place) -> None:
        if place.name:
            shutil.rmtree(self._queue.settings.folder / "scratch" / place.name, ignore_errors=True)

    def _tend(self, place: _Place) -> None:
        """Start a worker where none lives."""
        now = time.monotonic()
        if place.process is not None and place.process.poll() is not None:
            self._bury(place)
            place.num_deaths = 1 if now > place.started_s + HEALTHY_S else place.num_deaths + 1
            place.ready_s = now + min(2.0 ** (place.num_deaths - 1) - 1, MOST_WAIT_S)
            place.process = None
        if place.process is None and now >= place.ready_s and not self._is_stopping:
            place.name = f"{os.getpid()}-{place.number}-{secrets.token_hex(4)}"
            place.process, place.started_s = self._start(place.name), now

    def _bury(self, place: _Place) -> None:
        """Take the dead one's job back, and delete what it was drawing."""
        assert place.process is not None
        logger.warning("worker %s ended with %d", place.name, place.process.returncode)
        self._clear(place)
        if place.process.stdin is not None:
            place.process.stdin.close()
        try:
            self._queue.claims.abandon(place.name)
        except MienError as err:  # its lease ends without us
            logger.warning("%s", err.message)


def serve(num: int, options: Mapping[str, Any]) -> None:
    """Run workers until SIGTERM or SIGINT.

    Args:
        num: of processes.
        options: of the studio: network, device, precision, seed; `together`: jobs at a time in each process.
    """
    queue = open_queue(load_settings().jobs)
    queue.counts()
    level = logging.getLogger().getEffectiveLevel()

    def start(name: str) -> subprocess.Popen[bytes]:
        told = json.dumps({**options, "name": name, "level": level, "num": num})
        return subprocess.Popen([sys.executable, "-c", CODE, told], stdin=subprocess.PIPE)

    supervisor = Supervisor(queue, num, start)
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: supervisor.stop())
    supervisor.serve()


# ---- The worker's process --------------------------------------------------------------------------------------------


def work(queue: Queue, run: Run, name: str, together: int = 1) -> None:
    """Be a worker: stop at SIGTERM, or when the supervisor is gone."""
    worker = Worker(queue, run, name=name, together=together)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells the supervisor too

    def watch() -> None:
        while os.read(0, 1):
            pass
        worker.stop()

    threading.Thread(target=watch, daemon=True).start()
    worker.serve()


def child() -> None:
    """Load the networks and work; the first argument says how, as JSON."""
    import torch

    from mien.app.jobs.together import SharedStudio
    from mien.app.jobs.worker import run_requests, scratch_of
    from mien.app.studio import Studio

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = json.loads(sys.argv[1])
    logging.basicConfig(level=told["level"], format="%(levelname)s: %(message)s", stream=sys.stderr)
    if told["num"] > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // told["num"]))
    settings = load_settings()
    queue = open_queue(settings.jobs)
    kind = SharedStudio if told["together"] > 1 else Studio
    studio = kind(told["network"], device=told["device"], precision=told["precision"], seed=told["seed"])
    scratch = scratch_of(settings.jobs, told["name"])
    tempfile.tempdir = str(scratch)  # of everything else that is written down on the way, so that it goes with us
    work(queue, run_requests(studio, queue, settings, scratch), told["name"], told["together"])
