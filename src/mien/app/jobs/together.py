"""One studio for several jobs at a time: one of them computes, and the faces that wait to be inverted go together.

Whoever wants faces inverted lets the others compute until they want the same, or until nobody else is left; then all
faces of one method go through the networks as one batch. A job that is cancelled meanwhile stops alone, and one whose
faces break the batch is done alone. On a GPU a batch takes little longer than one face. The last bits of a result may
depend on the company, as they do on the machine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mien.app.studio import Studio
from mien.inversion.code import Inversion
from mien.report import Sink, Step, ignore

__all__ = ["SharedStudio"]

MAX_FACES = 16  # of one batch
GATHER_S = 0.2  # for so long others are waited for that may want the same


@dataclass(eq=False)
class _Seat:
    """One job's faces in a batch."""

    img: Tensor
    on_step: Sink
    done: threading.Event = field(default_factory=threading.Event)
    codes: list[Inversion] = field(default_factory=list)
    err: Exception | None = None


class SharedStudio(Studio):
    """A studio that several threads use, each within `using`; its arguments are those of `Studio`."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._turn = threading.Lock()  # who computes
        self._state = threading.Condition()
        self._num_users = self._num_waiting = 0
        self._groups: dict[tuple[str, int | None], list[_Seat]] = {}

    @contextmanager
    def using(self) -> Iterator[None]:
        """Compute while no other job does."""
        self._count(users=1)
        try:
            with self._turn:
                yield
        finally:
            self._count(users=-1)

    def _count(self, *, users: int = 0, waiting: int = 0) -> None:
        with self._state:
            self._num_users += users
            self._num_waiting += waiting
            self._state.notify_all()

    def invert(
        self, img: Tensor, *, method: str = "optimize", num_steps: int | None = None, on_step: Sink = ignore
    ) -> list[Inversion]:
        """Find the codes of aligned faces, together with those of other jobs; see `Studio.invert`."""
        seat, key = _Seat(img, on_step), (method, num_steps)
        with self._state:
            group = self._groups.setdefault(key, [])
            group.append(seat)
            leads = group[0] is seat
        self._turn.release()
        self._count(waiting=1)
        try:
            if leads:
                with self._state:
                    self._state.wait_for(lambda: self._num_waiting >= self._num_users, GATHER_S)
                self._lead(key)
            seat.done.wait()
        finally:
            self._count(waiting=-1)
            self._turn.acquire()
        if seat.err is not None:
            raise seat.err
        return seat.codes

    def _lead(self, key: tuple[str, int | None]) -> None:
        """Invert everybody's faces who came until it is our turn."""
        with self._turn:
            with self._state:
                seats = self._groups.pop(key)
            try:
                for some in _batches(seats):
                    self._invert(some, *key)
            finally:
                for seat in seats:
                    seat.done.set()

    def _invert(self, seats: Sequence[_Seat], method: str, num_steps: int | None) -> None:
        def tell(step: Step) -> None:
            for seat in seats:
                if seat.err is None:
                    try:
                        seat.on_step(step)
                    except Exception as err:
                        seat.err = err
            if (errors := [seat.err for seat in seats if seat.err is not None]) and len(errors) == len(seats):
                raise errors[0]

        img = torch.cat([seat.img for seat in seats])
        try:
            codes = iter(super().invert(img, method=method, num_steps=num_steps, on_step=tell))
        except Exception as err:
            waiting = [seat for seat in seats if seat.err is None]
            if len(seats) == 1:
                seats[0].err = seats[0].err or err
            for seat in waiting if len(seats) > 1 else ():
                self._invert([seat], method, num_steps)
            return
        for seat in seats:
            seat.codes = [next(codes) for _ in seat.img]


def _batches(seats: Sequence[_Seat]) -> Iterator[list[_Seat]]:
    """Split those who came into batches of not too many faces, nobody's in two."""
    some: list[_Seat] = []
    for seat in seats:
        if some and sum(len(one.img) for one in [*some, seat]) > MAX_FACES:
            yield some
            some = []
        some.append(seat)
    if some:
        yield some
