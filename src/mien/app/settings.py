"""What the doors have in common before any network is loaded: names, choices and defaults. Imports nothing heavy."""

from __future__ import annotations

from mien.nets.generator import NOISE_MODES
from mien.nets.precision import PRECISIONS

__all__ = ["DEFAULT_NETWORK", "DETECTOR", "DEVICES", "FACE_NET", "NOISE_MODES", "PRECISIONS"]

DEFAULT_NETWORK = "faces-64"
"""The generator that is used when none is named."""

DETECTOR, FACE_NET = "detector", "face-features"
"""Names of the bundled networks that find and read faces."""

DEVICES = ("auto", "cpu", "cuda", "mps")
