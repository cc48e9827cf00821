"""The queue of jobs: what is submitted is done once for its user, whoever is killed, and is forgotten when told.

The rows are SQLAlchemy's (SQLite, PostgreSQL) or Redis'; the rules are here, because no kept library has them: huey
drops a task as its worker begins it, so that a kill loses it; procrastinate is for PostgreSQL alone; neither shares
fairly between users nor tells a position. A worker *claims* a job for the length of a lease and renews it while it
works. Who dies loses the claim, and the job is taken again; who was only thought dead finds the claim gone, and what it
made is thrown away. A door *carries* a result in the same way, so that one result is brought by one door.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from mien.app.jobs.claims import PACE, SERVED, WORKERS, Claims, drop_needless
from mien.app.jobs.record import (
    Job,
    NoJobError,
    QueueFullError,
    Shelf,
    State,
    ended,
    forgotten,
    in_turn,
    living,
    next_turn,
    time_left_s,
)
from mien.app.jobs.store import Store, Table, open_store
from mien.app.settings import JobSettings
from mien.errors import MienError

__all__ = ["Queue", "Status", "open_queue"]

SALT = "salt"
JOB_ID = re.compile(r"[0-9a-f]{32}")
ORPHAN_S = 3600.0  # pictures of no job are deleted after so long
CARRY_S = 120.0
TIDY_S = 60.0  # old records and pictures of nobody are looked for so often

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Status:
    """A job as its user may see it.

    Attributes:
        job: itself.
        position: 1 for the next that is taken, 0 where it does not wait.
        left_s: estimate until it is done, None where there is none.
        num_workers: that live.
    """

    job: Job
    position: int
    left_s: float | None
    num_workers: int


class Queue:
    """Jobs and their pictures.

    Args:
        store: where they lie.
        settings: bounds, leases and how long what is kept.
        clock: seconds since 1970; several machines must agree on it to a fraction of a lease.
    """

    def __init__(self, store: Store, settings: JobSettings, clock: Callable[[], float] = time.time) -> None:
        self.store, self.settings, self._now = store, settings, clock
        self.claims = Claims(store, settings, clock)
        self._tidied_s = -TIDY_S

    # ---- Doors: submit, watch, cancel -------------------------------------------------------------------------------

    def submit(
        self,
        request: Mapping[str, Any],
        *,
        user: str,
        operation: str = "",
        inputs: Sequence[bytes] = (),
        key: str | None = None,
        address: str = "",
        keep_s: float | None = None,
    ) -> Job:
        """Put a job into the queue; once it returns, the job is not lost.

        Args:
            request: checked by `mien.app.jobs.requests.check`, as JSON; `op` names the operation.
            user: as the door names them, say `tg:123`.
            operation: what it is called in lists and averages: the checked request's `label`; by default its `op`.
            inputs: pictures, as files' bytes that `mien.app.trust.gate` has let through.
            key: of what the user did, say a message's number; the same key is the same job, and is done once.
            address: what the door needs to bring the result.
            keep_s: how long the result stays after it was delivered, by default as the settings say.

        Raises:
            QueueFullError: too many wait already, of everybody or of this user.
            QueueError: the database or the disk is full or away; the job is not in the queue.
        """
        job_id = secrets.token_hex(16) if key is None else self._id(user, key)
        if (known := self._find(job_id)) is not None:
            return known
        self.store.look(lambda table: self._check_room(table, user))
        try:
            job = Job(
                id=job_id,
                user=user,
                request=dict(request),
                operation=operation or str(request.get("op", "")),
                inputs=tuple(self.store.blobs.put(job_id, data) for data in inputs),
                address=address,
                created_s=self._now(),
                keep_s=self.settings.keep_s if keep_s is None else keep_s,
            )
            added = self.store.run(lambda table: self._add(table, job))
        except BaseException:
            with suppress(MienError):
                self._forget_pictures(job_id)
            raise
        logger.info("job %s: %s is queued", job_id[:8], job.operation)
        return added

    def _id(self, user: str, key: str) -> str:
        """Name a job by who asked for what, in a way that tells neither."""

        def salt(table: Table) -> str:
            if (known := table.fact(SALT)) is None:
                table.set_fact(SALT, known := secrets.token_hex(32))
            return str(known)

        known = self.store.look(lambda table: table.fact(SALT)) or self.store.run(salt)
        text = f"{len(user)}:{user}{key}".encode()
        return hmac.new(bytes.fromhex(known), text, hashlib.sha256).hexdigest()[:32]

    def _check_room(self, table: Table, user: str) -> None:
        jobs = table.on(Shelf.ACTIVE)
        mine = [job for job in jobs if job.user == user]
        if len(mine) >= self.settings.max_per_user:
            raise QueueFullError(f"{len(mine)} of your pictures are in the queue already", hint="wait for one of them")
        waiting = in_turn(jobs)
        if len(waiting) >= self.settings.max_waiting:
            left_s = self._left_s(table, waiting[0], jobs)
            hint = "try again later" if left_s is None else f"try again in {max(1, round(left_s / 60))} min"
            raise QueueFullError(f"the queue is full: {len(waiting)} pictures wait", hint=hint)

    def _add(self, table: Table, job: Job) -> Job:
        if (known := table.get(job.id)) is not None:
            return known
        self._check_room(table, job.user)
        added = replace(job, turn=next_turn(table.on(Shelf.ACTIVE), job.user, table.fact(SERVED) or 0))
        table.put(added)
        return added

    def _forget_pictures(self, job_id: str) -> None:
        """Delete pictures of a job that did not come into the queue, unless it came by another call."""
        if self._find(job_id) is None:
            self.store.blobs.drop(job_id)

    def _find(self, job_id: str) -> Job | None:
        return self.store.look(lambda table: table.get(job_id))

    def get(self, job_id: str, user: str | None = None) -> Job:
        """Return a job; with `user` only theirs.

        Raises:
            NoJobError: there is none.
        """
        return self.store.look(lambda table: _found(table, job_id, user))

    def status(self, job_id: str, user: str | None = None) -> Status:
        """Return where a job is, how many are before it, and when it will be done.

        Raises:
            NoJobError: there is none of this user.
        """

        def look(table: Table) -> Status:
            job = _found(table, job_id, user)
            jobs = [] if job.state.is_over else table.on(Shelf.ACTIVE)
            waiting = [other.id for other in in_turn(jobs)]
            position = waiting.index(job_id) + 1 if job_id in waiting else 0
            left_s = None if job.state.is_over else self._left_s(table, job, jobs)
            return Status(job=job, position=position, left_s=left_s, num_workers=self._num_workers(table))

        return self.store.look(look)

    def _left_s(self, table: Table, job: Job, jobs: Sequence[Job]) -> float | None:
        return time_left_s(job, jobs, table.fact(PACE) or {}, self._num_workers(table), self._now())

    def _num_workers(self, table: Table) -> int:
        return len(living(table.fact(WORKERS), self._now()))

    def jobs(self, user: str | None = None) -> list[Job]:
        """Return all jobs, or a user's, the oldest first."""
        found = self.store.look(lambda table: [job for shelf in Shelf for job in table.on(shelf)])
        return sorted((job for job in found if user in (None, job.user)), key=lambda job: (job.created_s, job.id))

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state, and how many workers live, for metrics."""
        jobs = self.jobs()
        workers = self.store.look(self._num_workers)
        return {state.value: sum(job.state == state for job in jobs) for state in State} | {"workers": workers}

    def cancel(self, job_id: str, user: str | None = None) -> Job:
        """Stop a job: at once where it waits, between two steps where it runs; what is over stays as it is.

        Raises:
            NoJobError: there is none of this user.
        """

        def change(table: Table) -> Job:
            job = _found(table, job_id, user)
            if job.state == State.QUEUED:
                job = ended(job, State.CANCELLED, self._now(), message="cancelled")
            elif job.state == State.RUNNING:
                job = replace(job, is_cancelling=True)
            else:
                return job
            table.put(job)
            return job

        return self.store.run(change)

    # ---- Pictures ----------------------------------------------------------------------------------------------------

    def inputs(self, job: Job) -> list[bytes]:
        """Return the pictures that a job works on."""
        return [self.store.blobs.get(job.id, digest) for digest in job.inputs]

    def results(self, job: Job) -> list[bytes]:
        """Return the pictures that a job made.

        Raises:
            QueueError: they are deleted already.
        """
        return [self.store.blobs.get(job.id, digest) for digest in job.results]

    def preview(self, job: Job) -> bytes | None:
        """Return the picture that shows how the result grows, if there is one."""
        return self.store.blobs.get(job.id, job.preview) if job.preview and not job.state.is_over else None

    # ---- Delivery and forgetting -------------------------------------------------------------------------------------

    def carry(self, courier: str, prefix: str, *, carry_s: float = CARRY_S) -> list[Job]:
        """Take the jobs that are over and that this door should tell its users of now.

        Each is given to one door at a time. A door that dies between telling and `delivered` is followed by another
        one after `carry_s`, so telling should be something that does no harm twice: editing one message, say.

        Args:
            courier: a name that no other process has.
            prefix: of the addresses that are this door's.
            carry_s: for so long nobody else gets it.
        """

        def is_mine(job: Job) -> bool:
            is_free = not job.delivered_s and job.courier_s < self._now()
            return bool(job.address) and job.address.startswith(prefix) and is_free

        def change(table: Table) -> list[Job]:
            mine = sorted(filter(is_mine, table.on(Shelf.OVER)), key=lambda job: job.finished_s)
            taken = [replace(job, courier=courier, courier_s=self._now() + carry_s) for job in mine]
            for job in taken:
                table.put(job)
            return taken

        has_any = self.store.look(lambda table: any(map(is_mine, table.on(Shelf.OVER))))
        return self.store.run(change) if has_any else []

    def delivered(self, job_id: str) -> None:
        """Note that the user has the result; with a `keep_s` of 0 it is deleted at once."""

        def change(table: Table) -> None:
            if (job := table.get(job_id)) is not None and not job.delivered_s:
                table.put(replace(job, delivered_s=self._now()))

        self.store.run(change)
        self.tidy()

    def tidy(self) -> int:
        """Delete what need not be kept any longer, and return how many jobs lost their pictures.

        A job that is over loses its inputs, then its results and its user; what is left says only that it was done.
        """
        now = self._now()

        def is_due(job: Job) -> bool:
            if job.delivered_s:
                return job.delivered_s + job.keep_s <= now
            return job.finished_s + (self.settings.keep_undelivered_s if job.address else job.keep_s) <= now

        def is_old(job: Job) -> bool:
            return job.finished_s + self.settings.keep_records_s <= now

        def change(table: Table) -> list[str]:
            due = [job for job in table.on(Shelf.OVER) if is_due(job)]
            for job in due:
                table.put(forgotten(job, now))
            for job in table.on(Shelf.PAST) if is_time else ():
                if is_old(job):
                    table.remove(job.id)
            return [job.id for job in due]

        is_time = now > self._tidied_s + TIDY_S
        has_due = is_time or self.store.look(lambda table: any(map(is_due, table.on(Shelf.OVER))))
        due = self.store.run(change) if has_due else []
        for job_id in due:
            self.store.blobs.drop(job_id)
        if is_time:
            self._tidied_s = now
            self._sweep(now)
            self.store.scrub()
        return len(due)

    def _sweep(self, now: float) -> None:
        """Delete pictures that belong to no job, or to one that is forgotten: somebody was killed between two steps."""
        for job_id in self.store.blobs.jobs(now - ORPHAN_S):
            job = self._find(job_id)
            if job is None or not job.has_files:
                self.store.blobs.drop(job_id)
            elif job.state.is_over:
                drop_needless(self.store.blobs, job)

    def delete(self, job_id: str, user: str | None = None) -> None:
        """Delete a job and its pictures, whatever it does now.

        Raises:
            NoJobError: there is none of this user.
        """

        def change(table: Table) -> None:
            table.put(forgotten(_found(table, job_id, user), self._now()))

        self.store.run(change)
        self.store.blobs.drop(job_id)

    def delete_user_data(self, user: str) -> int:
        """Delete every job and picture of a user and return how many there were; what runs is stopped."""

        def change(table: Table) -> list[str]:
            mine = [job for job in (*table.on(Shelf.ACTIVE), *table.on(Shelf.OVER)) if job.user == user]
            for job in mine:
                table.put(forgotten(job, self._now()))
            return [job.id for job in mine]

        ids = self.store.run(change)
        for job_id in ids:
            self.store.blobs.drop(job_id)
        self.store.scrub()
        logger.info("%d jobs of one user are deleted", len(ids))
        return len(ids)


def _found(table: Table, job_id: str, user: str | None) -> Job:
    """Return a job; a number comes from anybody, so what is none never reaches the database."""
    job = table.get(job_id) if JOB_ID.fullmatch(job_id) else None
    if job is None or user not in (None, job.user):
        raise NoJobError("there is no such job", hint="results are deleted after a while; send the picture again")
    return job


def open_queue(settings: JobSettings) -> Queue:
    """Open the queue that the operator's settings name.

    Raises:
        InputError: no such database, or a folder that is not ours.
        MissingExtraError: the database's library is not installed.
    """
    return Queue(open_store(settings.url.reveal(), settings.folder), settings)
