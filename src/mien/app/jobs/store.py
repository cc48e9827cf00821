"""Where the queue's records and pictures lie: SQLite with a private folder, or PostgreSQL, through SQLAlchemy.

Every change is a function of a `Table` that runs in one transaction, alone: SQLite locks its file, PostgreSQL takes an
advisory lock. `run` repeats it while the database is locked, restarting or away, as long as the caller is patient; a
function must therefore do nothing but read and write the table. Redis has the same shape in `mien.app.jobs.redis`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mien.app.jobs.record import Job, QueueError, Shelf
from mien.atomic import replacing
from mien.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Blobs", "FolderBlobs", "Store", "Table", "again", "digest_of", "open_store"]

PATIENCE_S = 15.0
DATABASE = "queue.sqlite"
LOCK = 0x6D69656E  # of PostgreSQL's advisory locks: the letters of mien

Result = TypeVar("Result")


def digest_of(data: bytes) -> str:
    """Return the name of a picture in the queue's keeping: its sha256."""
    return hashlib.sha256(data).hexdigest()


class Table(Protocol):
    """The records, within one transaction."""

    def get(self, job_id: str) -> Job | None: ...

    def put(self, job: Job) -> None: ...

    def remove(self, job_id: str) -> None: ...

    def on(self, shelf: Shelf) -> list[Job]: ...

    def fact(self, name: str) -> Any:
        """A number or a mapping under a name, None where there is none."""

    def set_fact(self, name: str, value: Any) -> None: ...


class Blobs(Protocol):
    """Pictures by job and sha256; nobody outside names a file."""

    def put(self, job: str, data: bytes) -> str: ...

    def get(self, job: str, digest: str) -> bytes: ...

    def drop(self, job: str, digest: str | None = None) -> None:
        """Delete one picture, or everything of a job."""

    def jobs(self, before_s: float) -> list[str]:
        """Who has pictures that came before that time."""


class Store(Protocol):
    """Records and pictures."""

    blobs: Blobs

    def run(self, change: Callable[[Table], Result], *, patience_s: float = PATIENCE_S) -> Result:
        """Do `change` in one transaction, alone.

        Raises:
            QueueError: the database is away, locked or full, for longer than `patience_s`.
        """

    def look(self, read: Callable[[Table], Result], *, patience_s: float = PATIENCE_S) -> Result:
        """Read without waiting for writers."""

    def scrub(self) -> None:
        """Take what was deleted off the disk, as far as the database lets us."""

    def close(self) -> None: ...


def again(attempt: Callable[[], Result], failures: tuple[type[Exception], ...], patience_s: float) -> Result:
    """Call until it succeeds, with pauses that grow and do not meet others'.

    Raises:
        QueueError: it failed for `patience_s`.
    """
    until_s, pause_s = time.monotonic() + patience_s, 0.02
    while True:
        try:
            return attempt()
        except failures as err:
            if time.monotonic() + pause_s > until_s:
                reason = str(getattr(err, "orig", None) or err).strip().splitlines()[:1]
                hint = "look whether it runs and has space; what is in the queue stays there"
                raise QueueError(f"the queue's database fails: {' '.join(reason)[:200]}", hint=hint) from None
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, 1.0)


# ---- Pictures in a folder --------------------------------------------------------------------------------------------


class FolderBlobs:
    """Pictures as files of a folder that nobody else may enter: <job>/<sha256>."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)

    def _path(self, job: str, digest: str) -> Path:
        assert re.fullmatch(r"[0-9a-f]{32}", job) and re.fullmatch(r"[0-9a-f]{64}", digest)
        return self._folder / job / digest

    def put(self, job: str, data: bytes) -> str:
        path = self._path(job, digest_of(data))
        with replacing(path) as part:
            part.write_bytes(data)
            with open(part, "rb") as file:
                os.fsync(file.fileno())
        return path.name

    def get(self, job: str, digest: str) -> bytes:
        try:
            data = self._path(job, digest).read_bytes()
        except OSError:
            raise QueueError("a picture of the job is not there any more", hint="send it again") from None
        if digest_of(data) != digest:
            raise QueueError("a picture of the job was damaged on the disk", hint="send it again")
        return data

    def drop(self, job: str, digest: str | None = None) -> None:
        if digest is None:
            shutil.rmtree(self._path(job, "0" * 64).parent, ignore_errors=True)
        else:
            self._path(job, digest).unlink(missing_ok=True)

    def jobs(self, before_s: float) -> list[str]:
        found = []
        with suppress(OSError), os.scandir(self._folder) as entries:
            found = [e for e in entries if re.fullmatch(r"[0-9a-f]{32}", e.name) and e.is_dir(follow_symlinks=False)]
        return [entry.name for entry in found if entry.stat().st_mtime < before_s]


# ---- SQL -------------------------------------------------------------------------------------------------------------


class _SqlTable:
    def __init__(self, link: Connection, tables: Any) -> None:
        self._link, self._jobs, self._facts = link, tables["mien_jobs"], tables["mien_facts"]

    def get(self, job_id: str) -> Job | None:
        from sqlalchemy import select

        body = self._link.execute(select(self._jobs.c.body).where(self._jobs.c.id == job_id)).scalar()
        return None if body is None else Job.of(json.loads(body))

    def put(self, job: Job) -> None:
        row = {"shelf": job.shelf.value, "body": json.dumps(job.record())}
        changed = self._link.execute(self._jobs.update().where(self._jobs.c.id == job.id).values(row))
        if not changed.rowcount:
            self._link.execute(self._jobs.insert().values(id=job.id, **row))

    def remove(self, job_id: str) -> None:
        self._link.execute(self._jobs.delete().where(self._jobs.c.id == job_id))

    def on(self, shelf: Shelf) -> list[Job]:
        from sqlalchemy import select

        bodies = self._link.execute(select(self._jobs.c.body).where(self._jobs.c.shelf == shelf.value)).scalars()
        return [Job.of(json.loads(body)) for body in bodies]

    def fact(self, name: str) -> Any:
        from sqlalchemy import select

        text = self._link.execute(select(self._facts.c.value).where(self._facts.c.name == name)).scalar()
        return None if text is None else json.loads(text)

    def set_fact(self, name: str, value: Any) -> None:
        text = json.dumps(value)
        changed = self._link.execute(self._facts.update().where(self._facts.c.name == name).values(value=text))
        if not changed.rowcount:
            self._link.execute(self._facts.insert().values(name=name, value=text))


class _SqlBlobs:
    """Pictures as rows, so that several machines need nothing but the database."""

    def __init__(self, store: _SqlStore) -> None:
        self._store, self._table = store, store.tables["mien_blobs"]

    def _of(self, job: str, digest: str | None) -> Any:
        mine = self._table.c.job == job
        return mine if digest is None else mine & (self._table.c.digest == digest)

    def put(self, job: str, data: bytes) -> str:
        digest = digest_of(data)
        row = {"job": job, "digest": digest, "data": data, "made_s": time.time()}

        def change(link: Connection) -> None:
            link.execute(self._table.delete().where(self._of(job, digest)))
            link.execute(self._table.insert().values(row))

        self._store.execute(change)
        return digest

    def get(self, job: str, digest: str) -> bytes:
        from sqlalchemy import select

        data = self._store.execute(
            lambda link: link.execute(select(self._table.c.data).where(self._of(job, digest))).scalar()
        )
        if data is None:
            raise QueueError("a picture of the job is not there any more", hint="send it again")
        return bytes(data)

    def drop(self, job: str, digest: str | None = None) -> None:
        self._store.execute(lambda link: link.execute(self._table.delete().where(self._of(job, digest))))

    def jobs(self, before_s: float) -> list[str]:
        from sqlalchemy import select

        old = select(self._table.c.job).where(self._table.c.made_s < before_s).distinct()
        return self._store.execute(lambda link: list(link.execute(old).scalars()))


class _SqlStore:
    """SQLite or PostgreSQL."""

    blobs: Blobs

    def __init__(self, url: str, folder: Path | None) -> None:
        try:
            import sqlalchemy
        except ImportError as err:
            raise MissingExtraError("the queue needs SQLAlchemy", hint="pip install 'mien[jobs]'") from err
        self._failures = (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError)
        try:
            engine = sqlalchemy.create_engine(url, pool_pre_ping=True, hide_parameters=True)
        except (sqlalchemy.exc.ArgumentError, ImportError, ValueError):
            hint = "write postgresql+psycopg://user@host/name, redis://host, or leave it out for SQLite"
            raise InputError("the queue's address is none that can be used", hint=hint) from None
        self._is_sqlite = engine.dialect.name == "sqlite"
        if self._is_sqlite:
            sqlalchemy.event.listen(engine, "connect", _tune_sqlite)
        self._engine, self._ready = engine, False
        self._metadata = _tables()
        self.tables = self._metadata.tables
        self.blobs = _SqlBlobs(self) if folder is None else FolderBlobs(folder)

    def execute(
        self, change: Callable[[Connection], Result], *, alone: bool = False, patience_s: float = PATIENCE_S
    ) -> Result:
        """Do `change` in one transaction; `alone` keeps other writers out from its start."""
        from sqlalchemy import text

        def attempt() -> Result:
            if not self._ready:
                self._create()
            with self._engine.connect() as link, link.begin():
                if alone:
                    link.execute(
                        text("BEGIN IMMEDIATE" if self._is_sqlite else f"SELECT pg_advisory_xact_lock({LOCK})")
                    )
                elif self._is_sqlite:
                    link.execute(text("BEGIN"))
                return change(link)

        return again(attempt, self._failures, patience_s)

    def _create(self) -> None:
        from sqlalchemy import text

        with self._engine.connect() as link, link.begin():
            if not self._is_sqlite:
                link.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            self._metadata.create_all(link)
        self._ready = True

    def run(self, change: Callable[[Table], Result], *, patience_s: float = PATIENCE_S) -> Result:
        return self.execute(lambda link: change(_SqlTable(link, self.tables)), alone=True, patience_s=patience_s)

    def look(self, read: Callable[[Table], Result], *, patience_s: float = PATIENCE_S) -> Result:
        return self.execute(lambda link: read(_SqlTable(link, self.tables)), patience_s=patience_s)

    def scrub(self) -> None:
        from sqlalchemy import text

        if self._is_sqlite:  # rows are overwritten by secure_delete; what is left is the log
            with suppress(*self._failures), self._engine.connect() as link:
                link.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

    def close(self) -> None:
        self._engine.dispose()


def _tables() -> Any:
    from sqlalchemy import Column, Float, LargeBinary, MetaData, String, Text
    from sqlalchemy import Table as SqlTable

    metadata = MetaData()
    id_, shelf = Column("id", String(32), primary_key=True), Column("shelf", String(8), index=True, nullable=False)
    SqlTable("mien_jobs", metadata, id_, shelf, Column("body", Text, nullable=False))
    SqlTable(
        "mien_facts", metadata, Column("name", String(32), primary_key=True), Column("value", Text, nullable=False)
    )
    keys = [Column(name, String(64), primary_key=True) for name in ("job", "digest")]
    SqlTable("mien_blobs", metadata, *keys, Column("data", LargeBinary, nullable=False), Column("made_s", Float))
    return metadata


def _tune_sqlite(link: Any, _record: object) -> None:
    """Leave transactions to us, let readers read while one writes, and let nothing that was told be lost with power."""
    link.isolation_level = None
    for setting in ("busy_timeout=2000", "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        link.execute(f"PRAGMA {setting}").close()


def _private(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as err:
        hint = "name another with MIEN_JOBS_FOLDER"
        raise InputError(f"cannot keep the queue in {folder}: {err.strerror}", hint=hint) from err
    return folder


def open_store(url: str, folder: Path) -> Store:
    """Open the queue's store.

    Args:
        url: `postgresql+psycopg://...` or `redis://...` for several machines; empty for SQLite in `folder`.
        folder: of SQLite's file and pictures; only its owner may enter it.

    Raises:
        InputError: no such address, or a folder that is not ours.
        MissingExtraError: the database's library is not installed.
    """
    if url.startswith(("redis://", "rediss://", "unix://")):
        from mien.app.jobs.redis import RedisStore

        return RedisStore(url)
    if url:
        return _SqlStore(re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url), None)
    place = _private(folder)
    return _SqlStore(f"sqlite:///{place / DATABASE}", place / "pictures")
