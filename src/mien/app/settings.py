"""What the doors have in common before any network is loaded: names, choices and defaults. Imports nothing heavy."""

from __future__ import annotations

__all__ = ["DEFAULT_NETWORK", "DETECTOR", "DEVICES", "FACE_NET", "METHODS", "PRECISIONS"]

DEFAULT_NETWORK = "faces-64"
"""The generator that is used when none is named."""

DETECTOR, FACE_NET = "detector", "face-features"
"""Names of the bundled networks that find and read faces."""

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("fp32", "bf16")
METHODS = ("optimize", "encoder")
