"""Kill everything of a service at random moments while users send pictures; then count what is lost, double or left.

    python bench/kills.py --minutes 10 --store redis --out out/kills.json

Workers, supervisors and submitting programs are ended with `kill -9`; connections to the database are cut, and the
database itself is killed and started again (Redis), restarted at once (PostgreSQL) or locked for seconds (SQLite). The
users are programs of their own that write down what they want before they ask for it, so that one that was killed asks
again, with the same key. What is delivered is written down too; the audit compares both lists.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from mien.app.jobs.queue import ORPHAN_S, Queue, open_queue
from mien.app.jobs.record import Job, QueueError, QueueFullError, State
from mien.app.settings import load_settings
from mien.errors import MienError
from mien.report import Sink, Step

ADDRESS = "kills:"
EDITS = [{"op": "edit", "strengths": {"smile": strength}} for strength in (1.0, -1.0)]
KINDS: list[dict[str, Any]] = [
    {"op": "generate", "seeds": [1, 2]},
    *({"op": "change", "operations": [edit], "method": "encoder"} for edit in EDITS),
    {"op": "change", "operations": [EDITS[0]], "method": "optimize", "steps": 20},
]
TOY = "import sys; sys.path.insert(0, {folder!r}); from kills import toy_worker; toy_worker()"


# ---- Databases -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Database(Protocol):
    """Where the queue lies, and how it is harmed."""

    url: str

    def cut(self) -> None:
        """End every connection."""

    def crash(self) -> None:
        """Kill the database, and start it again."""

    def stop(self) -> None: ...


class Sqlite:
    """A file; nobody can cut it off, but anybody may lock it."""

    url = ""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state" / "queue.sqlite"

    def cut(self) -> None:
        self._lock(0.5)

    def crash(self) -> None:
        self._lock(4.0)

    def _lock(self, seconds: float) -> None:
        link = sqlite3.connect(self._path, isolation_level=None, timeout=30)
        with suppress(sqlite3.OperationalError):
            link.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            link.execute("ROLLBACK")
        link.close()

    def stop(self) -> None: ...


class Redis:
    """A server that forgets nothing which it has confirmed."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder / "redis", free_port()
        self._folder.mkdir()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._start()

    def _start(self) -> None:
        kept = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        command = ["redis-server", "--port", str(self._port), "--dir", str(self._folder), *kept]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def cut(self) -> None:
        subprocess.run(["redis-cli", "-p", str(self._port), "client", "kill", "type", "normal"], capture_output=True)

    def crash(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class Postgres:
    """A server that is stopped as if its power were cut."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder / "postgres", free_port()
        self._folder.mkdir()
        self.url = f"postgresql://mien@127.0.0.1:{self._port}/postgres"
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(self._folder, "nobody")
            folder.chmod(0o711)
            self._as = {"user": "nobody"}
        self._run("initdb", "-U", "mien", "-A", "trust", "-D", str(self._folder / "data"))
        self._start()

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=100, **self._as)

    def _start(self) -> None:
        options, log = f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1", self._folder / "log"
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-o", options, "-l", str(log), "-w", "start")

    def cut(self) -> None:
        import psycopg

        with suppress(psycopg.Error), psycopg.connect(self.url, connect_timeout=5) as link:
            link.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def crash(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "stop")


STORES = {"sqlite": Sqlite, "redis": Redis, "postgresql": Postgres}


# ---- The programs ----------------------------------------------------------------------------------------------------


def write_down(path: Path, line: object) -> None:
    """Add a line that is on the disk when this returns."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_down(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def submit(user: str, wishes: Path, photo: Path, pause_s: float) -> None:
    """Be a user: want something, write it down, ask for it until it is in the queue; at first, what was broken off."""
    queue, rng, pictures = open_queue(load_settings().jobs), random.Random(), [photo.read_bytes()]
    while True:
        known = read_down(wishes)
        asked = {wish["key"] for wish in known if "s" in wish}
        wish = next((wish for wish in known if wish["key"] not in asked), None)
        if wish is None:
            wish = {"key": f"{user} {len(asked)}", "kind": rng.randrange(len(KINDS))}
            write_down(wishes, wish)
        request = KINDS[wish["kind"]]
        inputs = pictures if request["op"] == "change" else []
        began_s = time.monotonic()
        with suppress(QueueError, QueueFullError):
            for _ in range(rng.choice([1, 1, 2])):  # some programs ask twice
                options: dict[str, Any] = dict(inputs=inputs, key=wish["key"], address=ADDRESS)
                job = queue.submit(request, user=user, keep_s=0, **options)
            write_down(wishes, wish | {"id": job.id, "s": time.monotonic() - began_s})
        time.sleep(rng.uniform(0.5, 1.5) * pause_s)


def toy_worker() -> None:
    """A worker that only pretends; its result tells what came in."""
    from mien.app.jobs.supervisor import work

    told = json.loads(sys.argv[1])
    queue = open_queue(load_settings().jobs)

    def run(job: Job, on_step: Sink) -> tuple[Sequence[bytes], Sequence[str]]:
        for i in range(4):
            on_step(Step("toy", i, 4))
            time.sleep(0.05)
        return [b"result of " + json.dumps(job.request).encode() + b"".join(queue.inputs(job))], []

    work(queue, run, told["name"])


def serve(is_toy: bool, processes: int) -> None:
    """Be a supervisor with its workers."""
    from mien.app.jobs import supervisor

    if is_toy:
        supervisor.CODE = TOY.format(folder=str(Path(__file__).resolve().parent))
    options: dict[str, Any] = dict(network="faces-64", device="cpu", precision="fp32", seed=0, together=1)
    supervisor.serve(processes, options)


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in found.split()]


# ---- The storm -------------------------------------------------------------------------------------------------------


class Storm:
    """A service, its users, and what happens to them.

    Args:
        folder: of everything.
        store: one of `STORES`.
        is_toy: workers pretend, and begin within a second.
        num_users: programs that submit.
        processes: workers.
        pause_s: between a user's wishes, on average.
    """

    def __init__(
        self, folder: Path, store: str, *, is_toy: bool, num_users: int = 3, processes: int = 2, pause_s: float = 4.0
    ) -> None:
        self.folder, self.rng, self.kills = folder, random.Random(0), Counter[str]()
        self.database: Database = STORES[store](folder)
        bounds = {"LEASE_S": "10", "MAX_ATTEMPTS": "99", "RETRY_DELAY_S": "0.5", "MAX_WAITING": "1000"}
        self.env = os.environ | {f"MIEN_JOBS_{name}": value for name, value in bounds.items()}
        self.env |= {"MIEN_JOBS_URL": self.database.url, "MIEN_JOBS_FOLDER": str(folder / "state")}
        self.env |= {"MIEN_JOBS_MAX_PER_USER": "100"}
        self.queue: Queue = open_queue(load_settings(env=self.env).jobs)
        self.queue.counts()
        self.photo = folder / "photo.jpg"
        self.photo.write_bytes(b"photo" if is_toy else _photo())
        self.service_args = ["serve", "--toy" if is_toy else "--shipped", "--processes", str(processes)]
        common = ["--photo", str(self.photo), "--pause", str(pause_s)]
        self.user_args = [
            ["submit", "--user", f"user {i}", "--wishes", str(folder / f"wishes{i}"), *common] for i in range(num_users)
        ]
        self.service = self._start(self.service_args)
        self.users = [self._start(args) for args in self.user_args]
        self.tellings = Counter[str]()
        self.results: dict[str, str] = {}

    def _start(self, args: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, __file__, *args], env=self.env)

    def harm(self) -> None:
        """Do one bad thing."""
        kind = self.rng.choices(["worker", "supervisor", "user", "connections", "database"], [6, 1, 2, 3, 1])[0]
        if kind == "worker":
            workers = children(self.service.pid)
            if not workers:
                return
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(workers), signal.SIGKILL)
        elif kind == "supervisor":
            self.service.kill()
            self.service.wait()
            self.service = self._start(self.service_args)
        elif kind == "user":
            i = self.rng.randrange(len(self.users))
            self.users[i].kill()
            self.users[i].wait()
            self.users[i] = self._start(self.user_args[i])
        elif kind == "connections":
            self.database.cut()
        else:
            self.database.crash()
        self.kills[kind] += 1

    def deliver(self) -> None:
        """Bring what is over, as a door does; a database that is away is waited for."""
        with suppress(QueueError):
            for job in self.queue.carry("courier", ADDRESS, carry_s=20.0):
                data = self.queue.results(job) if job.state == State.DONE else [job.state.value.encode()]
                self.tellings[job.id] += 1
                self.results[job.id] = hashlib.sha256(b"".join(data)).hexdigest()
                self.queue.delivered(job.id)

    def rage(self, seconds: float, pauses_s: tuple[float, float]) -> None:
        until_s = time.monotonic() + seconds
        next_s = time.monotonic() + pauses_s[1]
        while time.monotonic() < until_s:
            self.deliver()
            if time.monotonic() > next_s:
                self.harm()
                next_s = time.monotonic() + self.rng.uniform(*pauses_s)
            time.sleep(0.2)

    def wishes(self) -> list[dict[str, Any]]:
        return [wish for i in range(len(self.users)) for wish in read_down(self.folder / f"wishes{i}") if "s" in wish]

    def settle(self, patience_s: float) -> None:
        """Send no more, and wait until everything that was wanted is there."""
        for user in self.users:
            user.kill()
            user.wait()
        until_s = time.monotonic() + patience_s
        while self.queue.jobs() and not all(job.delivered_s for job in self.queue.jobs()):
            self.deliver()
            if time.monotonic() > until_s:
                break
            time.sleep(0.2)

    def audit(self) -> dict[str, Any]:
        """Compare what the queue has confirmed with what was brought, and look for what is left.

        Pictures of a program that was killed before the queue had the job belong to nobody; they are swept in an hour.
        """
        wishes, kinds = self.wishes(), dict[int, set[str]]()
        confirmed = {wish["id"]: wish["kind"] for wish in wishes}
        for job_id, kind in confirmed.items():
            kinds.setdefault(kind, set()).add(self.results.get(job_id, ""))
        states = Counter(job.state.value for job in self.queue.jobs())
        orphans = self.queue.store.blobs.jobs(time.time() + 60)
        Queue(self.queue.store, self.queue.settings, clock=lambda: time.time() + 2 * ORPHAN_S).tidy()
        left = self.queue.store.blobs.jobs(time.time() + 60)
        scratch = self.folder / "state" / "scratch"
        times_ms = sorted(1e3 * wish["s"] for wish in wishes)
        return {
            "confirmed": len(confirmed),
            "delivered": len(self.tellings),
            "lost": len(set(confirmed) - set(self.tellings)),
            "twice": sum(count > 1 for count in self.tellings.values()),
            "not_done": sum(count for state, count in states.items() if state != State.DONE),
            "different_bytes_of_one_request": sum(len(found) > 1 for found in kinds.values()),
            "uploads_broken_off": len(orphans),
            "jobs_with_pictures_left": len(left),
            "previews_left": len(list(scratch.iterdir())) if scratch.is_dir() else 0,
            "kills": dict(self.kills),
            "submit_ms": {
                "median": round(statistics.median(times_ms), 1) if times_ms else None,
                "worst": round(times_ms[-1], 1) if times_ms else None,
            },
        }

    def end(self) -> None:
        for user in self.users:
            user.kill()
            user.wait()
        self.service.terminate()
        try:
            self.service.wait(120)
        finally:
            self.service.kill()
            self.service.wait()
            self.queue.store.close()
            self.database.stop()


def _photo() -> bytes:
    from mien.app.demo import demo_photo

    photo = io.BytesIO()
    demo_photo().save(photo, "JPEG", quality=92)
    return photo.getvalue()


def storm(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run one storm, and return its audit."""
    one = Storm(folder, args.store, is_toy=args.toy, num_users=args.users, processes=args.processes, pause_s=args.pause)
    try:
        one.rage(60 * args.minutes, tuple(args.between))
        one.settle(args.patience)
        return {"minutes": args.minutes, "store": args.store, **one.audit()}
    finally:
        one.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["storm", "serve", "submit"], default="storm")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--toy", action=argparse.BooleanOptionalAction, default=False, help="workers that pretend")
    parser.add_argument("--shipped", action="store_false", dest="toy", help="workers with the networks of the package")
    parser.add_argument("--users", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between a user's wishes")
    parser.add_argument("--between", type=float, nargs=2, default=(2.0, 15.0), help="seconds between two kills")
    parser.add_argument("--patience", type=float, default=600, help="seconds until everything must be there")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--user", default="")
    parser.add_argument("--wishes", type=Path)
    parser.add_argument("--photo", type=Path)
    args = parser.parse_args()
    if args.part == "serve":
        serve(args.toy, args.processes)
    elif args.part == "submit":
        submit(args.user, args.wishes, args.photo, args.pause)
    else:
        with tempfile.TemporaryDirectory() as folder:
            report = storm(Path(folder), args)
        print(json.dumps(report))
        if args.out is not None:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        if any(report[name] for name in ("lost", "twice", "not_done", "jobs_with_pictures_left")):
            sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except MienError as err:
        sys.exit(err.message)
