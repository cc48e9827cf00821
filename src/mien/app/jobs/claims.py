"""The workers' side of the queue: a job is claimed for the length of a lease, renewed, and ended once.

Who dies loses the claim, and the job is taken again; who was only thought dead finds the claim gone, and what it made
is thrown away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from mien.app.jobs.record import (
    ClaimLostError,
    Job,
    QueueError,
    Shelf,
    State,
    belongs,
    ended,
    in_turn,
    living,
    paced,
)
from mien.app.jobs.store import Blobs, Store, Table
from mien.app.settings import JobSettings
from mien.errors import Cancelled, MienError
from mien.report import Step

__all__ = ["PACE", "SERVED", "WORKERS", "Claims", "drop_needless"]

SERVED, PACE, WORKERS = "served", "pace", "workers"
"""Facts in the store: the turn that is served, average seconds by operation, when each worker was heard of."""

logger = logging.getLogger(__name__)


def drop_needless(blobs: Blobs, job: Job) -> None:
    """Delete what a job that is over needs no longer; sweeping does so too, if this call is killed."""
    with suppress(QueueError):
        for digest in {*job.inputs, job.preview} - {"", *job.results}:
            blobs.drop(job.id, digest)


def _lost(held: Job) -> ClaimLostError:
    return ClaimLostError(f"job {held.id[:8]} is no longer this worker's", hint="it is done again, or was deleted")


class Claims:
    """Who works on what.

    Args:
        store: where jobs lie.
        settings: leases and attempts.
        clock: seconds since 1970.
    """

    def __init__(self, store: Store, settings: JobSettings, clock: Callable[[], float]) -> None:
        self._store, self._settings, self._now = store, settings, clock

    def claim(self, worker: str) -> Job | None:
        """Take the next job, or None where there is none; its lease must be renewed by `beat` or `step`.

        Args:
            worker: a name that no other worker has.
        """
        if not self._store.look(self._has_work):
            return None
        return self._store.run(lambda table: self._claim(table, worker))

    def _has_work(self, table: Table) -> bool:
        now = self._now()
        return any(
            job.not_before_s <= now if job.state == State.QUEUED else job.lease_s < now
            for job in table.on(Shelf.ACTIVE)
        )

    def _claim(self, table: Table, worker: str) -> Job | None:
        now = self._now()
        for job in table.on(Shelf.ACTIVE):
            if job.state == State.RUNNING and job.lease_s < now:
                self._take_back(table, job)
        waiting = [job for job in in_turn(table.on(Shelf.ACTIVE)) if job.not_before_s <= now]
        if not waiting:
            return None
        job = replace(
            waiting[0],
            state=State.RUNNING,
            attempt=waiting[0].attempt + 1,
            worker=worker,
            started_s=now,
            lease_s=now + self._settings.lease_s,
            stage="",
            done=0,
            total=0,
        )
        table.put(job)
        table.set_fact(SERVED, max(table.fact(SERVED) or 0, job.turn))
        return job

    def _take_back(self, table: Table, job: Job) -> None:
        """Let a job whose worker died be done again, but not for ever: it may be what kills them."""
        logger.warning("job %s: its worker is gone after attempt %d", job.id[:8], job.attempt)
        if job.is_cancelling:
            self._end(table, job, State.CANCELLED, message="cancelled")
        elif job.attempt >= self._settings.max_attempts:
            message = f"the work broke off {job.attempt} times"
            self._end(table, job, State.FAILED, message=message, hint="try a smaller picture, or later")
        else:
            table.put(replace(job, state=State.QUEUED, worker="", lease_s=0.0))

    def abandon(self, worker: str) -> None:
        """Take back the jobs of a worker that is known to be dead, before their leases end."""

        def change(table: Table) -> None:
            for job in table.on(Shelf.ACTIVE):
                if job.state == State.RUNNING and belongs(job.worker, worker):
                    self._take_back(table, job)
            seen = living(table.fact(WORKERS), self._now())
            table.set_fact(WORKERS, {name: at for name, at in seen.items() if not belongs(name, worker)})

        self._store.run(change)

    def here(self, worker: str) -> None:
        """Note that a worker lives, for estimates."""

        def change(table: Table) -> None:
            table.set_fact(WORKERS, {**living(table.fact(WORKERS), self._now()), worker: self._now()})

        self._store.run(change)

    def beat(self, held: Job) -> None:
        """Renew the lease of a job.

        Raises:
            ClaimLostError: it is not this worker's any more.
            Cancelled: the user wants it to stop.
        """
        self._renew(held)

    def step(self, held: Job, step: Step, preview: bytes | None = None) -> None:
        """Renew the lease of a job and tell how far it is; as `beat`.

        Args:
            held: what `claim` returned.
            step: of the work.
            preview: a picture of how the result grows.
        """
        digest = None if preview is None else self._store.blobs.put(held.id, preview)
        before = self._renew(held, step, digest)
        if digest is not None and before not in ("", digest):
            self._store.blobs.drop(held.id, before)

    def _renew(self, held: Job, step: Step | None = None, preview: str | None = None) -> str:
        def change(table: Table) -> Job:
            job = table.get(held.id)
            if job is None or not job.is_held_by(held):
                raise _lost(held)
            renewed = replace(job, lease_s=self._now() + self._settings.lease_s)
            if step is not None:
                renewed = replace(renewed, stage=step.stage, done=step.done, total=step.total)
            table.put(renewed if preview is None else replace(renewed, preview=preview))
            return job

        job = self._store.run(change, patience_s=self._settings.lease_s)
        if job.is_cancelling:
            raise Cancelled("cancelled")
        return job.preview

    def finish(self, held: Job, results: Sequence[bytes], notes: Sequence[str] = ()) -> Job:
        """Keep the results of a job and call it done; all of them are there, or none.

        Raises:
            ClaimLostError: it is not this worker's any more; the results are thrown away.
            QueueError: the database or the disk is full or away.
        """
        digests = tuple(self._store.blobs.put(held.id, data) for data in results)

        def change(table: Table) -> Job:
            job = table.get(held.id)
            if job is not None and job.state == State.DONE and job.results == digests:
                return job  # the answer to an earlier try was lost on its way
            if job is None or not job.is_held_by(held):
                raise _lost(held)
            table.set_fact(PACE, paced(table.fact(PACE) or {}, job.operation, self._now() - job.started_s))
            return self._end(table, job, State.DONE, results=digests, notes=tuple(notes))

        try:
            job = self._store.run(change, patience_s=self._settings.lease_s)
        except ClaimLostError:
            self._drop_stray(held.id, digests)
            raise
        drop_needless(self._store.blobs, job)
        return job

    def fail(self, held: Job, err: MienError, *, retry: bool = False) -> Job:
        """End a job with an error, or let it be done again, if it may.

        Args:
            held: what `claim` returned.
            err: what the user is told.
            retry: it was a fault, not the picture: another attempt may do better.

        Raises:
            ClaimLostError: it is not this worker's any more.
        """

        def change(table: Table) -> Job:
            job = table.get(held.id)
            if job is not None and job.state == State.FAILED and job.message == err.message:
                return job
            if job is None or not job.is_held_by(held):
                raise _lost(held)
            if isinstance(err, Cancelled) or (retry and job.is_cancelling):
                return self._end(table, job, State.CANCELLED, message="cancelled")
            if retry and job.attempt < self._settings.max_attempts:
                wait_s = self._settings.retry_delay_s * 2 ** (job.attempt - 1)
                job = replace(job, state=State.QUEUED, worker="", lease_s=0.0, not_before_s=self._now() + wait_s)
                table.put(job)
                return job
            return self._end(table, job, State.FAILED, error=type(err).__name__, message=err.message, hint=err.hint)

        job = self._store.run(change, patience_s=self._settings.lease_s)
        if job.state.is_over:
            drop_needless(self._store.blobs, job)
        return job

    def release(self, held: Job) -> None:
        """Give a job back that a worker must leave; the attempt does not count."""

        def change(table: Table) -> None:
            job = table.get(held.id)
            if job is not None and job.is_held_by(held):
                table.put(replace(job, state=State.QUEUED, worker="", lease_s=0.0, attempt=job.attempt - 1))

        self._store.run(change)

    def _end(self, table: Table, job: Job, state: State, **more: Any) -> Job:
        over = ended(job, state, self._now(), **more)
        table.put(over)
        logger.info("job %s: %s is %s", job.id[:8], job.operation, state)
        return over

    def _drop_stray(self, job_id: str, digests: Sequence[str]) -> None:
        """Delete results that came too late."""
        job = self._store.look(lambda table: table.get(job_id))
        if job is None or not job.has_files:
            self._store.blobs.drop(job_id)
            return
        for digest in set(digests) - {*job.results, *job.inputs}:
            self._store.blobs.drop(job_id, digest)
