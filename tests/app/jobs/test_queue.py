"""The queue: what is submitted is done once, in fair turns, and forgotten when told; by a clock that the tests move."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mien.app.jobs.queue import ORPHAN_S, Queue, open_queue
from mien.app.jobs.record import ClaimLostError, Job, NoJobError, QueueError, QueueFullError, State, time_left_s
from mien.app.jobs.store import DATABASE, FolderBlobs, open_store
from mien.app.settings import JobSettings, Secret
from mien.errors import Cancelled, InputError, MienError
from mien.report import Step

pytest.importorskip("sqlalchemy", reason="needs the extra jobs")

EDIT = {"op": "edit", "strengths": {"smile": 1.0}}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Callable[..., Queue]:
    def make(**settings: Any) -> Queue:
        known = JobSettings(folder=tmp_path / "queue", **settings)
        return Queue(open_store("", known.folder), known, clock)

    return make


@pytest.fixture
def queue(make: Callable[..., Queue]) -> Queue:
    return make()


def pictures(queue: Queue) -> list[bytes]:
    """Every picture that the queue keeps."""
    return sorted(path.read_bytes() for path in (queue.settings.folder / "pictures").rglob("*") if path.is_file())


# ---- Once ------------------------------------------------------------------------------------------------------------


def test_a_job_s_way(queue: Queue, clock: Clock) -> None:
    job = queue.submit(EDIT, user="anna", inputs=[b"photo"], address="bot:1")
    assert (job.state, job.operation, job.turn) == (State.QUEUED, "edit", 0)
    assert queue.status(job.id).position == 1 and queue.inputs(job) == [b"photo"]

    held = queue.claims.claim("w1")
    assert held is not None and held.id == job.id and held.attempt == 1 and queue.claims.claim("w2") is None
    clock.now += 4
    queue.claims.step(held, Step("invert", 3, 10), preview=b"half")
    seen = queue.status(job.id)
    assert (seen.position, seen.job.stage, seen.job.done, seen.job.total) == (0, "invert", 3, 10)
    assert queue.preview(seen.job) == b"half"

    done = queue.claims.finish(held, [b"result"], notes=["2 of 3 faces"])
    assert done.state == State.DONE and queue.results(done) == [b"result"] and done.notes == ("2 of 3 faces",)
    assert pictures(queue) == [b"result"], "inputs and previews are deleted when the work is done"
    assert queue.claims.claim("w1") is None


def test_the_same_key_is_the_same_job(queue: Queue) -> None:
    first = queue.submit(EDIT, user="anna", inputs=[b"photo"], key="message 7")
    again = queue.submit(EDIT, user="anna", inputs=[b"photo"], key="message 7")
    other = queue.submit(EDIT, user="bert", inputs=[b"photo"], key="message 7")
    assert first == again and other.id != first.id and len(queue.jobs()) == 2
    assert "anna" not in first.id and first.id == open_queue(queue.settings)._id("anna", "message 7")


def test_the_same_key_stays_the_same_job_after_it_is_forgotten(queue: Queue) -> None:
    first = queue.submit(EDIT, user="anna", key="7", address="bot:1", keep_s=0)
    held = queue.claims.claim("w")
    assert held is not None
    queue.claims.finish(held, [b"result"])
    queue.delivered(first.id)
    again = queue.submit(EDIT, user="anna", key="7", address="bot:1", keep_s=0)
    assert again.state == State.DONE and queue.claims.claim("w") is None and queue.carry("bot", "bot:") == []


def test_a_killed_worker_s_job_is_taken_again_after_its_lease(queue: Queue, clock: Clock) -> None:
    queue.submit(EDIT, user="anna")
    first = queue.claims.claim("w1")
    assert first is not None
    clock.now += queue.settings.lease_s - 1
    queue.claims.beat(first)
    clock.now += queue.settings.lease_s - 1
    assert queue.claims.claim("w2") is None
    clock.now += 2
    second = queue.claims.claim("w2")
    assert second is not None and (second.id, second.attempt, second.worker) == (first.id, 2, "w2")

    with pytest.raises(ClaimLostError, match="no longer this worker's"):
        queue.claims.step(first, Step("late", 1, 2))
    with pytest.raises(ClaimLostError):
        queue.claims.finish(first, [b"too late"])
    with pytest.raises(ClaimLostError):
        queue.claims.fail(first, MienError("too late"))
    queue.claims.release(first)
    assert pictures(queue) == []
    assert queue.claims.finish(second, [b"result"]).results
    assert pictures(queue) == [b"result"]


def test_what_two_workers_make_alike_is_kept(queue: Queue, clock: Clock) -> None:
    queue.submit(EDIT, user="anna")
    first = queue.claims.claim("w1")
    clock.now += queue.settings.lease_s + 1
    second = queue.claims.claim("w2")
    assert first and second
    done = queue.claims.finish(second, [b"same"])
    assert queue.claims.finish(first, [b"same"]) == done, "an answer that was lost may be asked for again"
    assert queue.results(done) == [b"same"]


def test_a_job_that_kills_its_workers_fails_in_the_end(make: Callable[..., Queue], clock: Clock) -> None:
    queue = make(max_attempts=2)
    job = queue.submit(EDIT, user="anna")
    for _ in range(2):
        assert queue.claims.claim("w") is not None
        clock.now += queue.settings.lease_s + 1
    assert queue.claims.claim("w") is None
    failed = queue.get(job.id)
    assert (failed.state, failed.message) == (State.FAILED, "the work broke off 2 times") and failed.hint


def test_a_worker_that_is_known_to_be_dead_loses_its_job_at_once(queue: Queue) -> None:
    queue.submit(EDIT, user="anna")
    assert queue.claims.claim("w1")
    queue.claims.here("w1")
    queue.claims.abandon("w1")
    taken = queue.claims.claim("w2")
    assert taken is not None and taken.attempt == 2 and queue.counts()["workers"] == 0


def test_a_worker_that_must_leave_gives_its_job_back(queue: Queue) -> None:
    queue.submit(EDIT, user="anna")
    held = queue.claims.claim("w1")
    assert held is not None
    queue.claims.release(held)
    again = queue.claims.claim("w2")
    assert again is not None and again.attempt == 1


# ---- Cancel, fail, retry ---------------------------------------------------------------------------------------------


def test_cancel(queue: Queue, clock: Clock) -> None:
    first = queue.submit(EDIT, user="anna", inputs=[b"1"])
    clock.now += 1
    second = queue.submit(EDIT, user="bert", inputs=[b"2"])
    held = queue.claims.claim("w")
    assert held is not None and held.id == first.id
    assert queue.cancel(second.id).state == State.CANCELLED
    assert queue.cancel(first.id).is_cancelling
    with pytest.raises(Cancelled) as stopped:
        queue.claims.step(held, Step("invert", 1, 2))
    assert queue.claims.fail(held, stopped.value).state == State.CANCELLED
    assert queue.cancel(first.id).state == State.CANCELLED
    with pytest.raises(NoJobError, match="no such job"):
        queue.cancel(first.id, user="bert")


def test_a_cancelled_job_whose_worker_died_is_not_done_again(queue: Queue, clock: Clock) -> None:
    job = queue.submit(EDIT, user="anna")
    assert queue.claims.claim("w")
    queue.cancel(job.id)
    clock.now += queue.settings.lease_s + 1
    assert queue.claims.claim("w") is None and queue.get(job.id).state == State.CANCELLED


def test_bad_input_fails_and_a_fault_is_tried_again(queue: Queue, clock: Clock) -> None:
    bad = queue.submit(EDIT, user="anna", inputs=[b"photo"])
    held = queue.claims.claim("w")
    assert held is not None
    failed = queue.claims.fail(held, InputError("no face found", hint="try another photo"))
    assert (failed.id, failed.state, failed.message, failed.hint) == (
        bad.id,
        State.FAILED,
        "no face found",
        "try another photo",
    )
    assert pictures(queue) == []

    queue.submit(EDIT, user="anna")
    for attempt, wait_s in ((1, 2.0), (2, 4.0)):
        held = queue.claims.claim("w")
        assert held is not None and held.attempt == attempt
        assert queue.claims.fail(held, MienError("disk"), retry=True).state == State.QUEUED
        assert queue.claims.claim("w") is None
        clock.now += wait_s
    held = queue.claims.claim("w")
    assert held is not None and queue.claims.fail(held, MienError("disk"), retry=True).state == State.FAILED


# ---- Fair turns, bounds, estimates -----------------------------------------------------------------------------------


def test_who_sends_much_waits_for_themselves(queue: Queue, clock: Clock) -> None:
    for user in ["anna"] * 5 + ["bert"] * 2:
        queue.submit(EDIT, user=user)
        clock.now += 1
    order = []
    for i in range(8):
        held = queue.claims.claim("w")
        assert held is not None
        order.append(held.user)
        queue.claims.finish(held, [])
        if i == 2:
            queue.submit(EDIT, user="cora")
    assert "".join(user[0] for user in order) == "ababcaaa"


def test_position_is_the_order_in_which_jobs_are_taken(queue: Queue, clock: Clock) -> None:
    for user in "aaabbc":
        queue.submit(EDIT, user=user)
        clock.now += 1
    positions = {job.id: queue.status(job.id).position for job in queue.jobs()}
    for position in range(1, 7):
        held = queue.claims.claim("w")
        assert held is not None and positions[held.id] == position


def test_a_full_queue_says_so(make: Callable[..., Queue]) -> None:
    queue = make(max_waiting=2, max_per_user=2)
    queue.submit(EDIT, user="anna", inputs=[b"1"])
    queue.submit(EDIT, user="anna", inputs=[b"2"], key="k")
    with pytest.raises(QueueFullError, match="2 of your pictures are in the queue already"):
        queue.submit(EDIT, user="anna", inputs=[b"3"])
    with pytest.raises(QueueFullError, match="the queue is full: 2 pictures wait") as full:
        queue.submit(EDIT, user="bert", inputs=[b"4"])
    assert full.value.hint == "try again later" and pictures(queue) == [b"1", b"2"]
    assert queue.submit(EDIT, user="anna", inputs=[b"2"], key="k"), "what is in already is no new job"
    queue.claims.here("w")
    held = queue.claims.claim("w")
    assert held is not None and queue.claims.finish(held, [])
    assert queue.submit(EDIT, user="bert")


def test_estimates_are_measured(queue: Queue, clock: Clock) -> None:
    jobs = []
    for user in "abcd":
        jobs.append(queue.submit(EDIT, user=user))
        clock.now += 1
    assert queue.status(jobs[0].id).left_s is None, "nothing was measured yet"
    queue.claims.here("w")
    held = queue.claims.claim("w")
    assert held is not None
    clock.now += 10
    queue.claims.finish(held, [])
    assert [queue.status(job.id).left_s for job in jobs] == [None, 10.0, 20.0, 30.0]
    queue.claims.here("w2")
    assert [queue.status(job.id).left_s for job in jobs[1:]] == [10.0, 10.0, 20.0]
    assert queue.claims.claim("w")
    clock.now += 4
    assert [queue.status(job.id).left_s for job in jobs[1:]] == [6.0, 10.0, 16.0]
    clock.now += 30
    assert queue.status(jobs[1].id).left_s is None, "no worker was heard of"


def test_an_estimate_uses_the_pace_of_each_operation() -> None:
    jobs = [Job(id=str(i), user="a", request={}, operation=op, turn=i) for i, op in enumerate(["fast", "slow", "new"])]
    assert time_left_s(jobs[2], jobs, {"fast": 2.0, "slow": 10.0}, 1, 0.0) == 2 + 10 + 6


# ---- Delivery and forgetting -----------------------------------------------------------------------------------------


def done(queue: Queue, **kwargs: Any) -> Job:
    queue.submit(EDIT, **{"user": "anna", "inputs": [b"photo"], **kwargs})
    held = queue.claims.claim("w")
    assert held is not None
    return queue.claims.finish(held, [b"result"])


def test_one_door_brings_a_result(queue: Queue, clock: Clock) -> None:
    job = done(queue, address="bot:7", keep_s=0)
    assert queue.carry("web1", "web:") == []
    assert [each.id for each in queue.carry("bot1", "bot:")] == [job.id]
    assert queue.carry("bot2", "bot:") == []
    clock.now += 121
    assert [each.id for each in queue.carry("bot2", "bot:")] == [job.id], "the first door died before it told"
    queue.delivered(job.id)
    assert queue.carry("bot1", "bot:") == [] and pictures(queue) == []
    known = queue.get(job.id)
    assert (known.user, known.address, known.request, known.results) == ("", "", {}, ())
    with pytest.raises(NoJobError):
        queue.get(job.id, user="anna")


def test_results_are_kept_as_long_as_told(queue: Queue, clock: Clock) -> None:
    job = done(queue, keep_s=60)
    clock.now += 59
    assert queue.tidy() == 0 and queue.results(queue.get(job.id)) == [b"result"]
    clock.now += 1
    assert queue.tidy() == 1 and pictures(queue) == []
    clock.now += queue.settings.keep_records_s
    queue.tidy()
    with pytest.raises(NoJobError):
        queue.get(job.id)


def test_what_no_door_fetches_is_deleted_too(queue: Queue, clock: Clock) -> None:
    done(queue, address="bot:1", keep_s=0)
    clock.now += queue.settings.keep_undelivered_s - 1
    assert queue.tidy() == 0
    clock.now += 1
    assert queue.tidy() == 1 and pictures(queue) == []


def test_delete_my_data(queue: Queue, clock: Clock) -> None:
    finished, running = done(queue), queue.submit(EDIT, user="anna", inputs=[b"2"])
    held = queue.claims.claim("w")
    queue.submit(EDIT, user="anna", inputs=[b"3"])
    other = queue.submit(EDIT, user="bert", inputs=[b"4"])
    assert held is not None and held.id == running.id
    assert queue.delete_user_data("anna") == 3 and queue.delete_user_data("anna") == 0
    assert pictures(queue) == [b"4"] and [job.id for job in queue.jobs("bert")] == [other.id]
    with pytest.raises(ClaimLostError):
        queue.claims.finish(held, [b"made meanwhile"])
    assert pictures(queue) == [b"4"] and queue.jobs("anna") == []
    text = b"".join(path.read_bytes() for path in queue.settings.folder.glob(f"{DATABASE}*"))
    assert b"anna" not in text and b"bert" in text and queue.get(finished.id).user == ""


def test_one_job_can_be_deleted(queue: Queue) -> None:
    job = queue.submit(EDIT, user="anna", inputs=[b"photo"])
    with pytest.raises(NoJobError):
        queue.delete(job.id, user="bert")
    queue.delete(job.id, user="anna")
    assert pictures(queue) == [] and queue.claims.claim("w") is None


@pytest.mark.parametrize("job_id", ["", "x", "../../etc/passwd", "0" * 32, "\0" * 32, "0" * 31 + "\n", "é" * 32])
def test_a_number_that_is_none(job_id: str, queue: Queue) -> None:
    for ask in (queue.get, queue.status, queue.cancel, queue.delete):
        with pytest.raises(NoJobError, match="there is no such job"):
            ask(job_id)


def test_pictures_of_nobody_are_swept(queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A door was killed after it wrote a picture, before its job was in."""
    queue.store.blobs.put("0" * 32, b"orphan")
    kept = queue.submit(EDIT, user="anna", inputs=[b"photo"])
    monkeypatch.setattr(FolderBlobs, "jobs", lambda self, before_s: ["0" * 32, kept.id])
    clock.now += ORPHAN_S
    queue.tidy()
    assert pictures(queue) == [b"photo"]


def test_folder_tells_whose_pictures_are_old(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "pictures")
    blobs.put("a" * 32, b"picture")
    (tmp_path / "pictures" / "strange").mkdir()
    assert blobs.jobs(0.0) == [] and blobs.jobs(4e9) == ["a" * 32]


# ---- Faults ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_no_half_job(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mien.atomic.os.replace", full)
        with pytest.raises(MienError, match="No space left"):
            queue.submit(EDIT, user="anna", inputs=[b"photo"])
    assert queue.jobs() == [] and pictures(queue) == []

    queue.submit(EDIT, user="anna", inputs=[b"photo"])
    held = queue.claims.claim("w")
    assert held is not None
    with monkeypatch.context() as patch:
        patch.setattr("mien.atomic.os.replace", full)
        with pytest.raises(MienError, match="No space left"):
            queue.claims.finish(held, [b"result"])
    assert queue.claims.finish(held, [b"result"]).state == State.DONE, "with space again it goes on"


def test_a_full_database_is_told(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.submit(EDIT, user="anna")
    monkeypatch.setattr("mien.app.jobs.store.PATIENCE_S", 0.1)
    with queue.store._engine.connect() as link:  # type: ignore[attr-defined]
        pages = link.exec_driver_sql("PRAGMA page_count").scalar()
        link.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(QueueError, match="database or disk is full"):
        queue.store.run(lambda table: table.set_fact("large", "x" * 100_000), patience_s=0.1)
    assert len(queue.jobs()) == 1


def test_a_locked_database_is_waited_for(queue: Queue) -> None:
    queue.submit(EDIT, user="anna")
    queue.store.close()
    other = sqlite3.connect(queue.settings.folder / DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(QueueError, match="database is locked") as err:
        queue.store.run(lambda table: table.set_fact("x", 1), patience_s=0.05)
    assert "look whether it runs" in err.value.hint and len(queue.jobs()) == 1
    other.execute("ROLLBACK")
    other.close()
    queue.store.run(lambda table: table.set_fact("x", 1))


def test_nothing_personal_is_logged(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="mien")
    job = done(queue, user="tg:123456", address="bot:123456")
    queue.delivered(job.id)
    queue.delete_user_data("tg:123456")
    assert "123456" not in caplog.text and job.id not in caplog.text and job.id[:8] in caplog.text


def test_a_picture_that_the_disk_damaged_is_not_used(queue: Queue) -> None:
    job = queue.submit(EDIT, user="anna", inputs=[b"photo"])
    path = queue.settings.folder / "pictures" / job.id / job.inputs[0]
    path.write_bytes(b"phot0")
    with pytest.raises(QueueError, match="damaged on the disk"):
        queue.inputs(job)
    path.unlink()
    with pytest.raises(QueueError, match="not there any more"):
        queue.inputs(job)


def test_the_folder_is_private(queue: Queue) -> None:
    queue.submit(EDIT, user="anna", inputs=[b"photo"])
    assert (queue.settings.folder.stat().st_mode & 0o777) == 0o700
    assert (queue.settings.folder / "pictures").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "redis://host:port"])
def test_an_address_that_is_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the queue's address is none"):
        open_queue(replace(JobSettings(folder=tmp_path), url=Secret(url)))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot keep the queue in"):
        open_queue(JobSettings(folder=tmp_path / "file"))
