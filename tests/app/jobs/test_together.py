"""Several jobs share a studio: their faces go together, their faults and their ends stay their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mien.app.jobs.queue import open_queue
from mien.app.jobs.record import State
from mien.app.jobs.together import MAX_FACES, SharedStudio, _batches, _Seat
from mien.app.jobs.worker import Worker, run_requests
from mien.app.settings import JobSettings, Settings
from mien.app.studio import Studio
from mien.errors import Cancelled, InputError
from mien.inversion.code import Inversion
from mien.report import Sink, Step, ignore

Batches = list[int]


@pytest.fixture
def batches(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Batches:
    """The sizes of the batches that go through the networks."""
    sizes: Batches = []
    real = Studio.invert

    def invert(self: Studio, img: Tensor, **options: Any) -> list[Inversion]:
        sizes.append(len(img))
        return real(self, img, **options)

    monkeypatch.setattr(Studio, "invert", invert)
    monkeypatch.setattr("mien.app.jobs.together.GATHER_S", 30.0)
    return sizes


def at_once(studio: SharedStudio, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make calls in threads of their own, each as a job, and return what they return or raise."""
    found: list[Any] = [None] * len(calls)

    def run(i: int) -> None:
        try:
            with studio.using():
                found[i] = calls[i]()
        except Exception as err:
            found[i] = err

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    studio._count(users=1)  # nobody leads before all are there
    for thread in threads:
        thread.start()
    while studio._num_users < len(calls) + 1:
        time.sleep(0.01)
    studio._count(users=-1)
    for thread in threads:
        thread.join(60)
    return found


def faces(num: int, seed: int) -> Tensor:
    return torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_faces_of_several_jobs_are_one_batch(batches: Batches) -> None:
    studio = SharedStudio()
    imgs = [faces(2, 1), faces(1, 2), faces(3, 3)]
    found = at_once(studio, [lambda img=img: studio.invert(img, method="encoder") for img in imgs])  # type: ignore[misc]
    assert batches == [6] and [len(codes) for codes in found] == [2, 1, 3]
    for img, codes in zip(imgs, found, strict=True):
        alone = Studio().invert(img, method="encoder")
        for code, expected in zip(codes, alone, strict=True):
            torch.testing.assert_close(code.ws, expected.ws, rtol=1e-4, atol=1e-4)


def test_other_methods_are_other_batches(batches: Batches) -> None:
    studio = SharedStudio()
    calls = [
        lambda: studio.invert(faces(1, 1), method="encoder"),
        lambda: studio.invert(faces(1, 2), method="optimize", num_steps=1),
    ]
    assert [len(codes) for codes in at_once(studio, calls)] == [1, 1] and batches == [1, 1]


def test_who_cancels_stops_alone(batches: Batches) -> None:
    def stop(step: Step) -> None:
        raise Cancelled("cancelled")

    studio = SharedStudio()
    calls = [
        lambda: studio.invert(faces(1, 1), method="optimize", num_steps=2, on_step=stop),
        lambda: studio.invert(faces(1, 2), method="optimize", num_steps=2),
    ]
    first, second = at_once(studio, calls)
    assert isinstance(first, Cancelled) and len(second) == 1 and batches == [2]
    both = [lambda: studio.invert(faces(1, 1), method="optimize", num_steps=2, on_step=stop)] * 2
    assert all(isinstance(found, Cancelled) for found in at_once(studio, both))


def test_whose_faces_break_the_batch_fails_alone(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def invert(self: Studio, img: Tensor, *, on_step: Sink = ignore, **_: Any) -> list[Inversion]:
        if bool((img > 5).any()):
            raise InputError("too bright")
        return [Inversion(ws=face.mean().repeat(2, 2)) for face in img]

    monkeypatch.setattr(Studio, "invert", invert)
    monkeypatch.setattr("mien.app.jobs.together.GATHER_S", 30.0)
    studio = SharedStudio()
    good, bad = faces(1, 1), faces(1, 2) + 10
    first, second = at_once(studio, [lambda: studio.invert(good), lambda: studio.invert(bad)])
    assert len(first) == 1 and isinstance(second, InputError)


def test_batches_are_not_too_large() -> None:
    seats = [_Seat(torch.zeros(num, 1), ignore) for num in (10, 6, 1, 20, 3)]
    assert [[len(seat.img) for seat in some] for some in _batches(seats)] == [[10, 6], [1], [20], [3]]
    assert MAX_FACES == 16


def test_a_worker_does_several_jobs_at_a_time(tmp_path: Path, bundle: Path, photo: Path) -> None:
    pytest.importorskip("sqlalchemy", reason="needs the extra jobs")
    queue = open_queue(JobSettings(folder=tmp_path / "queue"))
    request = {"op": "change", "operations": [{"op": "edit", "strengths": {"smile": 1.0}}], "method": "encoder"}
    jobs = [queue.submit(request, user=user, inputs=[photo.read_bytes()]) for user in "abc"]
    worker = Worker(
        queue, run_requests(SharedStudio(), queue, Settings(jobs=queue.settings)), name="w", together=3, poll_s=0.02
    )
    thread = threading.Thread(target=worker.serve)
    thread.start()
    until_s = time.monotonic() + 60
    while not all(queue.get(job.id).state.is_over for job in jobs) and time.monotonic() < until_s:
        time.sleep(0.05)
    worker.stop()
    thread.join(30)
    assert [queue.get(job.id).state for job in jobs] == [State.DONE] * 3
    assert queue.counts()["workers"] == 3
    queue.claims.abandon("w")
    assert queue.counts()["workers"] == 0
