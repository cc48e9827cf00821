"""A worker: one process with the networks warm that takes jobs from the queue, one after the other.

A second thread renews the lease while the work goes on, and ends the process if the work neither listens nor ends in
time; the supervisor (`mien.app.jobs.supervisor`) starts another one. Told to stop, it finishes its job, or gives it
back between two steps when that takes too long. Nothing that a user sent or is called is logged.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mien.app.jobs.queue import Queue
from mien.app.jobs.record import ClaimLostError, Job, TimedOutError, thread_name
from mien.errors import Cancelled, InputError, MienError, MissingExtraError, WeightsError
from mien.report import Sink, Step

if TYPE_CHECKING:
    from mien.app.settings import JobSettings, Settings
    from mien.app.studio import Studio

__all__ = ["Run", "Worker", "run_requests", "scratch_of"]

POLL_S, TELL_S, HERE_S, PREVIEW_S, GRACE_S = 0.25, 0.5, 5.0, 2.0, 15.0
HUNG = 70  # exit code of a worker whose work does not end

Run = Callable[[Job, Sink], tuple[Sequence[bytes], Sequence[str]]]
"""Does a job: results as files, and notes for the user."""

logger = logging.getLogger(__name__)


class Leaving(Cancelled):
    """The worker must stop, and another one will do the job."""


class _Pulse:
    """Says that the worker lives while a job is worked on, and stops the work between two steps."""

    def __init__(self, queue: Queue, job: Job, leave_s: Callable[[], float]) -> None:
        self._queue, self._job, self._leave_s = queue, job, leave_s
        self._until_s = time.monotonic() + queue.settings.timeout_s
        self._told_s = self._shown_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._stopped_by: MienError | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(min(self._queue.settings.lease_s / 4, 5.0)):
            try:
                self._queue.claims.beat(self._job)
            except (Cancelled, ClaimLostError) as err:
                self._stopped_by = err
            except MienError as err:
                logger.warning("job %s: %s", self._job.id[:8], err.message)
            if time.monotonic() > self._until_s + GRACE_S:
                self._give_up()

    def _give_up(self) -> None:
        """End this process: the work does not listen."""
        logger.error("job %s: the work does not end", self._job.id[:8])
        try:
            self._queue.claims.fail(self._job, _timed_out(self._queue.settings.timeout_s))
        finally:
            os._exit(HUNG)

    def __call__(self, step: Step) -> None:
        """Hear of a step; raise what must stop the work."""
        now = time.monotonic()
        if self._stopped_by is not None:
            raise self._stopped_by
        if now > self._until_s:
            raise _timed_out(self._queue.settings.timeout_s)
        if now > self._leave_s():
            raise Leaving("the worker stops")
        if now > self._told_s + TELL_S:
            preview = self._preview(step) if now > self._shown_s + PREVIEW_S else None
            self._shown_s = self._shown_s if preview is None else now
            self._queue.claims.step(self._job, step, preview)
            self._told_s = now

    def _preview(self, step: Step) -> bytes | None:
        for path in step.pictures.values():
            if path.is_file():
                return path.read_bytes()
        return None


def _timed_out(timeout_s: float) -> TimedOutError:
    return TimedOutError(f"the work took longer than {timeout_s:g} s", hint="try a smaller picture or fewer steps")


class Worker:
    """Takes jobs and does them until it is told to stop.

    Args:
        queue: of jobs.
        run: does one.
        name: that no other worker has.
        together: jobs at a time, each in a thread of its own.
        poll_s: how often it looks for work.
    """

    def __init__(self, queue: Queue, run: Run, *, name: str, together: int = 1, poll_s: float = POLL_S) -> None:
        self._queue, self._run, self._together, self._poll_s = queue, run, together, poll_s
        self.name = name
        self._is_stopping, self._leave_s = False, math.inf  # plain values: a signal's handler may not wait for a lock

    def stop(self) -> None:
        """Take no more jobs; finish the one that runs, or give it back; told twice, give it back at the next step."""
        self._leave_s = time.monotonic() + (0 if self._is_stopping else self._queue.settings.drain_s)
        self._is_stopping = True

    def serve(self) -> None:
        """Work until `stop`; a queue that is away for a while is waited for."""
        if self._together == 1:
            self._take_jobs(self.name)
            return
        names = [thread_name(self.name, i) for i in range(self._together)]
        threads = [threading.Thread(target=self._take_jobs, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)

    def _take_jobs(self, name: str) -> None:
        here_s = -HERE_S
        while not self._is_stopping:
            try:
                if time.monotonic() > here_s + HERE_S:
                    self._queue.claims.here(name)
                    self._queue.tidy()
                    here_s = time.monotonic()
                job = self._queue.claims.claim(name)
            except MienError as err:
                logger.warning("%s", err.message)
                time.sleep(1.0)
                continue
            if job is None:
                time.sleep(self._poll_s)
            else:
                self._do(job)

    def _do(self, job: Job) -> None:
        """Do one job; whatever happens, the worker goes on, and the job is ended, given back, or its lease runs out."""
        try:
            with _Pulse(self._queue, job, lambda: self._leave_s) as pulse:
                self._try(job, pulse)
        except ClaimLostError:
            logger.warning("job %s is no longer this worker's", job.id[:8])
        except MienError as err:
            logger.error("job %s: its end cannot be told: %s", job.id[:8], err.message)

    def _try(self, job: Job, pulse: Sink) -> None:
        claims = self._queue.claims
        try:
            results, notes = self._run(job, pulse)
            claims.finish(job, results, notes)
        except ClaimLostError:
            raise
        except Leaving:
            claims.release(job)
        except (Cancelled, InputError, WeightsError, MissingExtraError, TimedOutError) as err:
            claims.fail(job, err)
        except MienError as err:  # a full disk, a database that is away
            logger.warning("job %s: attempt %d: %s", job.id[:8], job.attempt, err.message)
            claims.fail(job, _fault(job), retry=True)
        except Exception as err:
            where = "".join(traceback.format_tb(err.__traceback__))
            logger.error("job %s: attempt %d: %s at\n%s", job.id[:8], job.attempt, type(err).__name__, where)
            claims.fail(job, _fault(job), retry=True)


def _fault(job: Job) -> MienError:
    return MienError("something broke on our side", hint=f"try again later; the operator finds it as {job.id[:8]}")


def run_requests(studio: Studio, queue: Queue, settings: Settings, scratch: Path | None = None) -> Run:
    """Return how requests are done by a studio, whose networks are loaded now.

    Args:
        studio: to use; a `SharedStudio` where several jobs are done at a time.
        queue: that keeps the pictures.
        settings: bounds on what comes in, marks on what goes out.
        scratch: where previews are drawn; by default in the queue's folder.
    """
    from mien.app.jobs.requests import check
    from mien.app.jobs.together import SharedStudio
    from mien.app.jobs.work import Work
    from mien.app.trust.gate import admit, load_block_list

    blocked = load_block_list(settings.trust.block_list)
    scratch = scratch_of(settings.jobs) if scratch is None else scratch
    _warm(studio)

    def run(job: Job, on_step: Sink) -> tuple[Sequence[bytes], Sequence[str]]:
        request = check(job.request, len(job.inputs))
        on_step(Step("read", 0, 1))
        pictures = admit(queue.inputs(job), user=job.user, settings=settings.trust, blocked=blocked)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            preview = Path(folder) / "preview.png"
            work = Work(studio, pictures, on_step, settings.trust, preview)
            with studio.using() if isinstance(studio, SharedStudio) else nullcontext():
                made = request.run(work)
        return [one.file(settings.marks) for one in made], work.notes

    return run


def scratch_of(settings: JobSettings, worker: str = "") -> Path:
    """Return a place for pictures under way that nobody else may enter; what lies there for long is deleted.

    Args:
        settings: of the queue.
        worker: whose place it is, so that it can be cleared when they die.
    """
    folder = settings.folder / "scratch"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / worker).mkdir(mode=0o700, exist_ok=True)
    for left in folder.iterdir():
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - 2 * settings.timeout_s and left.name != worker:
                shutil.rmtree(left)
    return folder / worker


def _warm(studio: Studio) -> None:
    """Load what nearly every job needs."""
    _ = studio.G, studio.detector, studio.face_net, studio.encoder, studio.directions, studio.stats
