"""Where long work is written down: JSON lines, TensorBoard and MLflow behind one sink, any number of them at once.

Training goes on whatever happens to them. What is sent over a network is carried by a thread of its own: a server that
is lost is waited for and warned of once, and what it missed stands in the run's own files.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from mien.atomic import write_text
from mien.errors import Cancelled, InputError, MissingExtraError
from mien.report import Sink, Step

__all__ = ["About", "follow", "jsonl", "mlflow", "tee", "tensorboard"]

log = logging.getLogger(__name__)

PLACES = ("jsonl", "tensorboard", "mlflow")
EXPERIMENT = "mien"
BATCH = 200  # numbers that are sent at once, MLflow takes 1000
BATCH_S = 2.0  # and how long they wait for one another.
RETRY_S = 5.0  # Between two tries to reach a server that is lost,
GIVE_UP_S = 15.0  # and how long the end of a run waits for it.
MAX_WAITING = 10_000  # parcels for a lost server; later ones are left out
PARAM_CHARS, TAG_CHARS = 6000, 5000


@dataclass(frozen=True)
class About:
    """What is run, for those who compare runs.

    Attributes:
        name: of the work, such as `adapt`.
        folder: of the run; a run that goes on in it is the same run.
        settings: all that was chosen.
        facts: what else is known: hashes of data, the commit.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


def tee(*sinks: Sink) -> Sink:
    """Return a sink that tells every one of `sinks`, in order."""

    def tell(step: Step) -> None:
        for sink in sinks:
            sink(step)

    return tell


@contextmanager
def jsonl(path: Path) -> Iterator[Sink]:
    """Yield a sink that appends what has numbers or files to `path`, one JSON object a line; a whole line or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", buffering=1) as lines:

        def write(step: Step) -> None:
            kept = {kind: {k: str(v) for k, v in getattr(step, kind).items()} for kind in ("pictures", "files")}
            kept = {kind: named for kind, named in kept.items() if named}
            if step.scalars or kept:
                line = {"stage": step.stage, "step": step.done, "of": step.total, **step.scalars, **kept}
                lines.write(json.dumps(line) + "\n")

        yield write


@contextmanager
def tensorboard(folder: Path) -> Iterator[Sink]:
    """Yield a sink that writes numbers and pictures as TensorBoard's event files into `folder`.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as err:
        raise MissingExtraError("TensorBoard is not installed", hint="pip install 'mien[track]'") from err
    with SummaryWriter(str(folder)) as writer:

        def write(step: Step) -> None:
            for name, value in step.scalars.items():
                writer.add_scalar(f"{step.stage}/{name}", value, step.done)
            for name, path in step.pictures.items():
                with PIL.Image.open(path) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
                writer.add_image(f"{step.stage}/{name}", pixels, step.done, dataformats="HWC")

        yield write


# ---- MLflow ---------------------------------------------------------------------------------------------------------


class _Courier:
    """Carries parcels one after another in a thread; where the way is blocked it waits, and never holds up the caller.

    Args:
        to: whom, for the warnings.
        is_lost: says of an error whether the way is blocked; any other is the parcel's own fault.
    """

    def __init__(self, to: str, is_lost: Callable[[Exception], bool]) -> None:
        self.to, self.is_lost = to, is_lost
        self.waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(MAX_WAITING)
        self.over = threading.Event()
        self.num_left_out, self.is_warned = 0, False
        self.thread = threading.Thread(target=self._carry, name="mien-track", daemon=True)
        self.thread.start()

    def send(self, parcel: Callable[[], None]) -> None:
        """Hand over a parcel; it is left out where too many wait."""
        try:
            self.waiting.put_nowait(parcel)
        except queue.Full:
            self.num_left_out += 1

    def _carry(self) -> None:
        while (parcel := self.waiting.get()) is not None:
            while not self._is_delivered(parcel):
                if self.over.wait(RETRY_S):
                    self.num_left_out += 1
                    return

    def _is_delivered(self, parcel: Callable[[], None]) -> bool:
        try:
            parcel()
        except Exception as err:
            said = str(err).partition("\n")[0][:200]
            if not self.is_lost(err):
                log.warning("%s did not take something: %s", self.to, said)
                return True
            if not self.is_warned:
                log.warning("%s is lost, the run goes on without it: %s", self.to, said)
                self.is_warned = True
            return False
        if self.is_warned:
            log.warning("%s is back", self.to)
            self.is_warned = False
        return True

    def close(self) -> None:
        """Wait a little for what is on its way, and say what was left out."""
        with suppress(queue.Full):
            self.waiting.put(None, timeout=GIVE_UP_S)
        self.thread.join(GIVE_UP_S)
        self.over.set()
        if self.thread.is_alive():
            self.thread.join(1)
        left = self.num_left_out + sum(parcel is not None for parcel in list(self.waiting.queue))
        if left:
            log.warning("%s missed the last %d reports; the run's own files have them", self.to, left)


class _MlflowRun:
    """One run in an MLflow store; every method runs in the courier's thread, since the store may be slow or lost."""

    def __init__(self, client: Any, uri: str, about: About, artefacts: str | None) -> None:
        self.client, self.uri, self.about, self.artefacts = client, uri, about, artefacts
        self.id = ""

    def begin(self) -> None:
        """Go on with the run that the folder names, or begin a new one with its settings and facts."""
        kept = self.about.folder / "mlflow.json"
        try:
            held = json.loads(kept.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            held = {}
        if held.get("uri") == self.uri and self._goes_on(held["run_id"]):
            return
        found = self.client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else self.client.create_experiment(EXPERIMENT, self.artefacts)
        tags = {name: value[:TAG_CHARS] for name, value in self.about.facts.items()}
        name = f"{self.about.name} {self.about.folder.name}"
        self.id = self.client.create_run(experiment, run_name=name, tags=tags).info.run_id
        write_text(json.dumps({"uri": self.uri, "run_id": self.id}), kept)
        self._settings()

    def _goes_on(self, run_id: str) -> bool:
        """Take up a run; False where the store does not know it any more."""
        try:
            self.client.update_run(run_id, status="RUNNING")
        except Exception as err:
            if _is_unreachable(err):
                raise
            return False
        self.id = run_id
        return True

    def _settings(self) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)[:PARAM_CHARS]) for name, value in self.about.settings.items()]
        self.client.log_batch(self.id, params=params)

    def numbers(self, metrics: Sequence[tuple[str, float, int, int]]) -> None:
        """Log (name, value, time in ms, step)."""
        from mlflow.entities import Metric

        self.client.log_batch(self.id, metrics=[Metric(*metric) for metric in metrics])

    def artefact(self, path: Path, folder: str) -> None:
        """Keep a copy of a file."""
        self.client.log_artifact(self.id, str(path), folder)

    def end(self, status: str) -> None:
        """Say how it ended."""
        self.client.set_terminated(self.id, status)


def _client(uri: str) -> Any:
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as err:
        raise MissingExtraError("MLflow is not installed", hint="pip install 'mien[track]'") from err
    try:
        return MlflowClient(tracking_uri=uri)
    except Exception as err:  # of a store, of a database, of the address itself
        hint = "give http://host:5000, or sqlite:///path/to/mlflow.db"
        raise InputError(f"MLflow cannot use {uri}: {str(err)[:200]}", hint=hint) from err


def _is_unreachable(err: Exception) -> bool:
    """Say whether a store could not be reached, rather than did not like what it got."""
    return getattr(err, "error_code", "INTERNAL_ERROR") in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")


@contextmanager
def mlflow(uri: str, about: About) -> Iterator[Sink]:
    """Yield a sink that keeps numbers, pictures and files as a run of the experiment `mien` in an MLflow store.

    Args:
        uri: of a server, or `sqlite:///FILE` for a store without one; its artefacts then lie beside the file.
        about: what is run; settings become parameters, facts become tags.

    Raises:
        MissingExtraError: MLflow is not installed.
        InputError: the address cannot be one.
    """
    file = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    artefacts = None if file is None else (file.resolve().parent / "mlartifacts").as_uri()
    run = _MlflowRun(_client(uri), uri, about, artefacts)
    courier = _Courier(f"MLflow at {uri}", _is_unreachable)
    courier.send(run.begin)
    pending: list[tuple[str, float, int, int]] = []
    since = time.monotonic()

    def flush() -> None:
        nonlocal since
        since = time.monotonic()
        for first in range(0, len(pending), BATCH):
            some = pending[first : first + BATCH]
            courier.send(lambda some=some: run.numbers(some))  # type: ignore[misc]
        pending.clear()

    def write(step: Step) -> None:
        now_ms = int(time.time() * 1000)
        pending.extend(
            (f"{step.stage}/{name}", value, now_ms, step.done)
            for name, value in step.scalars.items()
            if math.isfinite(value)
        )
        if len(pending) >= BATCH or time.monotonic() - since > BATCH_S:
            flush()
        for name, path in (*step.pictures.items(), *step.files.items()):
            courier.send(lambda path=path, name=name: run.artefact(path, name))  # type: ignore[misc]

    status = "FAILED"
    try:
        yield write
        status = "FINISHED"
    except (Cancelled, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        flush()
        courier.send(lambda: run.end(status))
        courier.close()


# ---- By name --------------------------------------------------------------------------------------------------------


def _open(text: str, about: About) -> AbstractContextManager[Sink]:
    place, _, where = text.partition(":")
    if place == "jsonl":
        return jsonl(Path(where) if where else about.folder / "steps.jsonl")
    if place == "tensorboard":
        return tensorboard(Path(where) if where else about.folder / "tensorboard")
    if place == "mlflow":
        store = (about.folder.parent / "mlflow.db").resolve()
        return mlflow(where or f"sqlite:///{store.as_posix()}", about)
    hint = f"write {', '.join(PLACES)}, or one with an address: mlflow:http://localhost:5000"
    raise InputError(f"nothing can be tracked with {place!r}", hint=hint)


@contextmanager
def follow(places: Sequence[str], about: About) -> Iterator[Sink]:
    """Yield one sink for all of `places`, each a name with or without an address.

    Args:
        places: `jsonl[:FILE]`, `tensorboard[:FOLDER]`, `mlflow[:URI]`; by default in or beside the run's folder.
        about: what is run.

    Raises:
        InputError: an unknown name, or an address that cannot be one.
        MissingExtraError: a library is not installed.
    """
    with ExitStack() as stack:
        yield tee(*[stack.enter_context(_open(text, about)) for text in places])
