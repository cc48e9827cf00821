"""The queue's records and pictures in Redis: a change watches one counter, and is done again if another was quicker.

What is told as done is as safe as the server's own settings: `appendonly yes` with `appendfsync always` loses nothing.

Source: Redis documentation, Transactions: optimistic locking using check-and-set.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mien.app.jobs.record import Job, QueueError, Shelf
from mien.app.jobs.store import PATIENCE_S, Blobs, Table, again, digest_of
from mien.errors import InputError, MissingExtraError

__all__ = ["RedisStore"]

SHELVES = {shelf: f"mien:{shelf.value}" for shelf in Shelf}
FACTS, VERSION = "mien:facts", "mien:version"
PICTURES, ARRIVALS = "mien:pictures:", "mien:arrivals"

Result = TypeVar("Result")


class _RedisTable:
    """Reads at once, gathers what is to be written."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self._jobs: dict[str, Job | None] = {}
        self._facts: dict[str, Any] = {}

    @property
    def has_changes(self) -> bool:
        return bool(self._jobs or self._facts)

    def get(self, job_id: str) -> Job | None:
        if job_id in self._jobs:
            return self._jobs[job_id]
        body = next(filter(None, (self._link.hget(key, job_id) for key in SHELVES.values())), None)
        return None if body is None else Job.of(json.loads(body))

    def put(self, job: Job) -> None:
        self._jobs[job.id] = job

    def remove(self, job_id: str) -> None:
        self._jobs[job_id] = None

    def on(self, shelf: Shelf) -> list[Job]:
        held = {job.id: job for job in (Job.of(json.loads(body)) for body in self._link.hvals(SHELVES[shelf]))}
        return [job for job in {**held, **self._jobs}.values() if job is not None and job.shelf == shelf]

    def fact(self, name: str) -> Any:
        text = self._link.hget(FACTS, name)
        return self._facts[name] if name in self._facts else None if text is None else json.loads(text)

    def set_fact(self, name: str, value: Any) -> None:
        self._facts[name] = value

    def write(self, pipe: Any) -> None:
        """Queue what was gathered."""
        for job_id, job in self._jobs.items():
            for key in SHELVES.values():
                pipe.hdel(key, job_id)
            if job is not None:
                pipe.hset(SHELVES[job.shelf], job_id, json.dumps(job.record()))
        for name, value in self._facts.items():
            pipe.hset(FACTS, name, json.dumps(value))
        pipe.incr(VERSION)


class _RedisBlobs:
    def __init__(self, link: Any, failures: tuple[type[Exception], ...]) -> None:
        self._link, self._failures = link, failures

    def _again(self, attempt: Callable[[], Result]) -> Result:
        return again(attempt, self._failures, PATIENCE_S)

    def put(self, job: str, data: bytes) -> str:
        digest = digest_of(data)

        def attempt() -> None:
            with self._link.pipeline(transaction=True) as pipe:
                pipe.hset(PICTURES + job, digest, data)
                pipe.zadd(ARRIVALS, {job: time.time()})
                pipe.execute()

        self._again(attempt)
        return digest

    def get(self, job: str, digest: str) -> bytes:
        data = self._again(lambda: self._link.hget(PICTURES + job, digest))
        if data is None:
            raise QueueError("a picture of the job is not there any more", hint="send it again")
        return bytes(data)

    def drop(self, job: str, digest: str | None = None) -> None:
        def attempt() -> None:
            if digest is not None:
                self._link.hdel(PICTURES + job, digest)
                return
            with self._link.pipeline(transaction=True) as pipe:
                pipe.delete(PICTURES + job)
                pipe.zrem(ARRIVALS, job)
                pipe.execute()

        self._again(attempt)

    def jobs(self, before_s: float) -> list[str]:
        return [name.decode() for name in self._again(lambda: self._link.zrangebyscore(ARRIVALS, "-inf", before_s))]


class RedisStore:
    """A store in one Redis database.

    Args:
        url: redis://[user:password@]host[:port][/number], rediss:// or unix://.

    Raises:
        InputError: no such address.
        MissingExtraError: redis is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            import redis
        except ImportError as err:
            raise MissingExtraError("this queue needs redis", hint="pip install 'mien[jobs]'") from err
        try:
            self._link = redis.Redis.from_url(url, socket_timeout=10)
        except ValueError:
            raise InputError("the queue's address is none of Redis", hint="write redis://host:6379/0") from None
        self._failures = (redis.exceptions.RedisError, OSError)
        self.blobs: Blobs = _RedisBlobs(self._link, self._failures)

    def run(self, change: Callable[[Table], Result], *, patience_s: float = PATIENCE_S) -> Result:
        def attempt() -> Result:
            with self._link.pipeline(transaction=True) as pipe:
                pipe.watch(VERSION)  # type: ignore[no-untyped-call]
                table = _RedisTable(pipe)
                result = change(table)
                if table.has_changes:
                    pipe.multi()
                    table.write(pipe)
                    pipe.execute()
                return result

        return again(attempt, self._failures, patience_s)

    def look(self, read: Callable[[Table], Result], *, patience_s: float = PATIENCE_S) -> Result:
        return again(lambda: read(_RedisTable(self._link)), self._failures, patience_s)

    def scrub(self) -> None:
        """Redis forgets at once; its file does when it is rewritten."""

    def close(self) -> None:
        self._link.close()
