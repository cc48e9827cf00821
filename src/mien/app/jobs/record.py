"""What is known of a job, and the rules on many of them: whose turn it is, how long that takes, what is kept.

Turns are start-time fair queueing with jobs of one size: somebody's next job comes one turn after their last one, and
nobody's before the turn that is served now. So whoever sends fifty pictures waits for themselves, not others for them.

Source: Goyal et al. 1996, Start-time Fair Queuing, doi:10.1145/248157.248171.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from mien.errors import InputError, MienError

__all__ = [
    "ClaimLostError",
    "Job",
    "NoJobError",
    "QueueError",
    "QueueFullError",
    "Shelf",
    "State",
    "TimedOutError",
    "belongs",
    "ended",
    "forgotten",
    "in_turn",
    "living",
    "next_turn",
    "paced",
    "thread_name",
    "time_left_s",
]

ALIVE_S = 20.0  # a worker that was not heard of for so long does not count
PACE_WEIGHT = 0.2  # of the newest time in the moving average


class QueueError(MienError):
    """The database of the queue does not answer, or cannot take more."""


class QueueFullError(MienError):
    """The queue takes no more jobs now, of anybody or of this user."""


class NoJobError(InputError):
    """There is no job of that number, or it is somebody else's."""


class ClaimLostError(MienError):
    """The job is no longer this worker's: its lease ran out, or the job was deleted."""


class TimedOutError(MienError):
    """The work took longer than the operator allows."""


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Nothing more will happen to it."""
        return self not in (State.QUEUED, State.RUNNING)


class Shelf(StrEnum):
    """Where its record lies, so that the few that matter now are found quickly."""

    ACTIVE = "active"  # waits or runs
    OVER = "over"  # its results are kept
    PAST = "past"  # only that it was is known


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of the studio for somebody; times are seconds since 1970.

    Attributes:
        id: 32 hex digits; with the key of a door always the same, so that what is sent twice is one job.
        user: as the door names them; empty once the job is cleaned up.
        address: what the door needs to bring the result, say a chat and a message; nobody else reads it.
        request: operation and parameters as JSON, see `mien.app.jobs.requests`.
        operation: its name, for averages and lists.
        inputs: digests of the pictures in the queue's keeping.
        results: likewise.
        turn: of the fair share; lower is earlier.
        attempt: how often a worker took it.
        worker: who has it now.
        lease_s: until when, unless they say that they still live.
        not_before_s: a retry waits so long.
        is_cancelling: the worker will stop between two steps.
        stage: of the work; `done` of `total` steps.
        preview: digest of a picture that shows how it grows.
        error: class of what made it fail, for doors that speak another language.
        message: why it failed, in words for the user.
        hint: what to do about it.
        notes: what the user should know of the result.
        keep_s: how long results stay after delivery.
        courier: which door brings the result now, until `courier_s`.
        delivered_s: when the door had brought it.
        has_files: its pictures and its user are not deleted yet.
    """

    id: str
    user: str
    request: Mapping[str, Any]
    operation: str
    inputs: tuple[str, ...] = ()
    address: str = ""
    state: State = State.QUEUED
    turn: int = 0
    created_s: float = 0.0
    started_s: float = 0.0
    finished_s: float = 0.0
    attempt: int = 0
    worker: str = ""
    lease_s: float = 0.0
    not_before_s: float = 0.0
    is_cancelling: bool = False
    stage: str = ""
    done: int = 0
    total: int = 0
    preview: str = ""
    results: tuple[str, ...] = ()
    error: str = ""
    message: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()
    keep_s: float = 0.0
    courier: str = ""
    courier_s: float = 0.0
    delivered_s: float = 0.0
    has_files: bool = True

    @property
    def shelf(self) -> Shelf:
        """Where its record lies."""
        return Shelf.PAST if not self.has_files else Shelf.OVER if self.state.is_over else Shelf.ACTIVE

    def record(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self) | {"state": self.state.value}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Job:
        """Return the job of a record."""
        lists = {name: tuple(record[name]) for name in ("inputs", "results", "notes")}
        return cls(**{**record, **lists, "state": State(record["state"])})

    def is_held_by(self, other: Job) -> bool:
        """Say whether whoever holds `other`, an earlier look at this job, still has it."""
        return self.state == State.RUNNING and (self.worker, self.attempt) == (other.worker, other.attempt)


def ended(job: Job, state: State, now_s: float, **more: Any) -> Job:
    """Return a job as it is when nothing more happens to it."""
    return replace(job, state=state, finished_s=now_s, worker="", lease_s=0.0, is_cancelling=False, **more)


def forgotten(job: Job, now_s: float) -> Job:
    """Return what may stay of a job: that it was."""
    state, finished_s = (job.state, job.finished_s) if job.state.is_over else (State.CANCELLED, now_s)
    return Job(
        id=job.id,
        user="",
        request={},
        operation=job.operation,
        state=state,
        created_s=job.created_s,
        finished_s=finished_s,
        delivered_s=job.delivered_s,
        has_files=False,
    )


def living(seen: Mapping[str, float] | None, now_s: float) -> dict[str, float]:
    """Return the workers that were heard of lately, of worker => when."""
    return {worker: at_s for worker, at_s in (seen or {}).items() if at_s > now_s - ALIVE_S}


def thread_name(worker: str, number: int) -> str:
    """Return the name of a worker's thread, which dies with it.

    >>> belongs(thread_name("7-0-ab", 1), "7-0-ab"), belongs("7-0-abc", "7-0-ab")
    (True, False)
    """
    return f"{worker}.{number}"


def belongs(name: str, worker: str) -> bool:
    """Say whether this is a worker, or a thread of it."""
    return name == worker or name.startswith(f"{worker}.")


def in_turn(jobs: Iterable[Job]) -> list[Job]:
    """Return those that wait, next first."""
    waiting = [job for job in jobs if job.state == State.QUEUED]
    return sorted(waiting, key=lambda job: (job.turn, job.created_s, job.id))


def next_turn(jobs: Iterable[Job], user: str, served: int) -> int:
    """Return the turn of a user's new job.

    Args:
        jobs: that wait or run.
        user: whose.
        served: turn of the last job that was taken.

    >>> next_turn([], "anna", served=7)
    7
    """
    return max([served, *(job.turn + 1 for job in jobs if job.user == user)])


def paced(pace: Mapping[str, float], operation: str, took_s: float) -> dict[str, float]:
    """Return the averages by operation after one more run.

    >>> paced({"edit": 10.0}, "edit", 20.0)
    {'edit': 12.0}
    """
    before = pace.get(operation, took_s)
    return {**pace, operation: before + PACE_WEIGHT * (took_s - before)}


def _work_left_s(job: Job, pace_s: float, now_s: float) -> float:
    """Return how long a job still takes by the average of its kind; one that is late is about to be done."""
    if job.state != State.RUNNING:
        return pace_s
    return max(pace_s - (now_s - job.started_s), 0.05 * pace_s)


def time_left_s(
    job: Job, jobs: Sequence[Job], pace: Mapping[str, float], num_workers: int, now_s: float
) -> float | None:
    """Estimate when a job is done, in seconds from now; None where nothing was measured yet or nobody works.

    Args:
        job: that waits or runs.
        jobs: all that wait or run.
        pace: average seconds by operation.
        num_workers: that live.
        now_s: the time.
    """
    if not pace or num_workers < 1:
        return None
    usual_s = sum(pace.values()) / len(pace)

    def left_s(of: Job) -> float:
        return _work_left_s(of, pace.get(of.operation, usual_s), now_s)

    if job.state == State.RUNNING:
        return left_s(job)
    free_at_s = sorted(left_s(other) for other in jobs if other.state == State.RUNNING)[-num_workers:]
    free_at_s += [0.0] * (num_workers - len(free_at_s))
    for other in in_turn(jobs):
        soonest_s = min(free_at_s)
        free_at_s.remove(soonest_s)
        free_at_s.append(soonest_s + left_s(other))
        if other.id == job.id:
            return free_at_s[-1]
    return None
