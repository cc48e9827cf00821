"""Kill workers, and the supervisor too, at random moments while jobs are done; nothing may be lost or doubled.

python bench/queue_storm.py --minutes 10 --out bench/results/queue_storm.json
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import PIL.Image

from mien.app.demo import demo_photo
from mien.app.jobs.queue import Queue, open_queue
from mien.app.jobs.record import QueueFullError
from mien.app.jobs.requests import check
from mien.app.settings import load_settings

COMMAND = [sys.executable, "-c", "from mien.app.cli import main; main()", "worker"]


def requests(photo: bytes) -> list[tuple[dict[str, Any], list[bytes]]]:
    edits = [{"op": "edit", "strengths": {"smile": strength}} for strength in (1.0, -1.0)]
    changes = [{"op": "change", "operations": [edit], "method": "encoder"} for edit in edits]
    slow = {"op": "change", "operations": [edits[0]], "method": "optimize", "steps": 20}
    return [({"op": "generate", "seeds": [1, 2]}, []), *((change, [photo]) for change in [*changes, slow])]


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in found.split()]


class Storm:
    def __init__(self, folder: Path, processes: int) -> None:
        self.env = os.environ | {
            "MIEN_JOBS_FOLDER": str(folder),
            "MIEN_JOBS_LEASE_S": "10",
            "MIEN_JOBS_MAX_ATTEMPTS": "99",
        }
        self.queue: Queue = open_queue(load_settings(env=self.env).jobs)
        self.processes, self.rng = processes, random.Random(0)
        self.submitted: dict[str, int] = {}
        self.delivered: Counter[str] = Counter()
        self.bytes_of: dict[int, set[bytes]] = {}
        self.kills = Counter[str]()
        self.submit_s: list[float] = []
        self.start()

    def start(self) -> None:
        command = [*COMMAND, "--processes", str(self.processes)]
        self.supervisor = subprocess.Popen(command, env=self.env)

    def submit(self, kinds: list[tuple[dict[str, Any], list[bytes]]]) -> None:
        kind, number = self.rng.randrange(len(kinds)), len(self.submitted)
        request, pictures = kinds[kind]
        label = check(request, len(pictures)).label
        for _ in range(self.rng.choice([1, 1, 2])):  # some doors ask twice
            began_s = time.monotonic()
            with suppress(QueueFullError):
                job = self.queue.submit(
                    request,
                    user=f"user {number % 5}",
                    operation=label,
                    inputs=pictures,
                    key=str(number),
                    address="storm:",
                    keep_s=0,
                )
                self.submitted[job.id] = kind
                self.submit_s.append(time.monotonic() - began_s)

    def kill(self) -> None:
        workers = children(self.supervisor.pid)
        if self.rng.random() < 0.1:
            self.supervisor.kill()
            self.supervisor.wait()
            self.kills["supervisor"] += 1
            self.start()
        elif workers:
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(workers), signal.SIGKILL)
                self.kills["worker"] += 1

    def deliver(self) -> None:
        for job in self.queue.carry("courier", "storm:"):
            assert job.state == "done", f"{job.id}: {job.message}"
            for data in self.queue.results(job):
                with PIL.Image.open(io.BytesIO(data)) as image:
                    image.load()
            self.bytes_of.setdefault(self.submitted[job.id], set()).add(b"".join(self.queue.results(job)))
            self.delivered[job.id] += 1
            self.queue.delivered(job.id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    photo = io.BytesIO()
    demo_photo().save(photo, "JPEG", quality=92)
    kinds = requests(photo.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(Path(folder), args.processes)
        until_s = time.monotonic() + 60 * args.minutes
        next_kill_s = time.monotonic() + 30
        while time.monotonic() < until_s:
            storm.submit(kinds)
            storm.deliver()
            if time.monotonic() > next_kill_s:
                storm.kill()
                next_kill_s = time.monotonic() + storm.rng.uniform(2, 40)
            time.sleep(storm.rng.uniform(1, 4))
        end_s = time.monotonic() + 600
        while len(storm.delivered) < len(storm.submitted) and time.monotonic() < end_s:
            storm.deliver()
            time.sleep(0.5)
        storm.supervisor.terminate()
        assert storm.supervisor.wait(120) == 0
        report = {
            "minutes": args.minutes,
            "jobs": len(storm.submitted),
            "delivered": len(storm.delivered),
            "delivered_twice": sum(count > 1 for count in storm.delivered.values()),
            "kills": dict(storm.kills),
            "different_bytes_of_one_request": sum(len(found) > 1 for found in storm.bytes_of.values()),
            "pictures_left": sum(path.is_file() for path in (Path(folder) / "pictures").rglob("*")),
            "submit_ms": {
                "median": round(1e3 * statistics.median(storm.submit_s), 1),
                "worst": round(1e3 * max(storm.submit_s), 1),
            },
        }
    print(json.dumps(report, indent=1))
    if args.out is not None:
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
