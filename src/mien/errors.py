"""The error tree: every failure that a user can cause is a `MienError` with a message, a hint and an exit code."""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "HashMismatchError",
    "InputError",
    "MienError",
    "MissingExtraError",
    "MissingWeightsError",
    "NoFaceError",
    "UnsafeWeightsError",
    "UnsupportedFileError",
    "WeightsError",
]


class MienError(Exception):
    """Something went wrong that can be said in one line; `hint` tells what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(MienError):
    """What was given cannot be used: a wrong value, file or combination."""

    exit_code = 2


class NoFaceError(InputError):
    """A picture shows no face (or not the one asked for)."""


class UnsupportedFileError(InputError):
    """A file is not a picture that can be read: foreign, damaged, empty or too large."""


class WeightsError(MienError):
    """A file of weights is damaged, foreign or does not fit the network."""


class MissingWeightsError(WeightsError, InputError):
    """There is no file of weights, and no network, of the name that was given."""


class UnsafeWeightsError(WeightsError):
    """A file of weights asks for code to be run; it never is."""


class HashMismatchError(WeightsError):
    """A downloaded file is not the one that was asked for."""


class MissingExtraError(MienError):
    """An optional library is needed; the hint names the extra to install."""


class Cancelled(MienError):
    """The caller asked long work to stop."""

    exit_code = 130
