"""A network from picture to picture in 8 bits: what its layers do on real faces decides how they are rounded.

ONNX Runtime writes the rounding into the graph (QDQ), which OpenVINO reads too. Weights are rounded per channel. The
first and the last convolution stay as they are: they touch the pixels themselves.

Source: Jacob et al. 2018, arXiv:1712.05877; QDQ: onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from mien.weights.engine import library

__all__ = ["MIN_FACES", "quantize"]

MIN_FACES = 8
"""Fewer faces say little of the range that a layer's values have."""


class _Faces:
    """Gives the calibration its pictures, batch by whole batch, under the name of the network's input."""

    def __init__(self, faces: Tensor, at_once: int) -> None:
        self._rest = iter(faces[: len(faces) // at_once * at_once].split(at_once))

    def get_next(self) -> dict[str, Any] | None:
        img = next(self._rest, None)
        return None if img is None else {"img": img.numpy()}


@contextmanager
def _silent() -> Iterator[None]:
    """The library logs advice to its root logger's level."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def quantize(path: Path, out: Path, faces: Tensor, *, at_once: int = 1) -> None:
    """Write the ONNX file `path` once more, in 8 bits.

    Args:
        path: of a network that takes `img`.
        out: an .onnx file, or an .xml for OpenVINO.
        faces: [N, 3, S, S] in [-1, 1], what the network will be shown; `MIN_FACES` at the least.
        at_once: how many it takes.

    Raises:
        MissingExtraError: a library is not installed.
    """
    onnx, tools = library("onnx", "onnx"), library("onnxruntime.quantization", "onnx")
    convs = [node.name for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    with tempfile.TemporaryDirectory(dir=out.parent) as aside, _silent():
        coded = Path(aside) / "coded.onnx" if out.suffix == ".xml" else out
        tools.quantize_static(
            path,
            coded,
            _Faces(faces, at_once),
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            nodes_to_exclude=[*convs[:1], *convs[-1:]],
        )
        if coded != out:
            openvino = library("openvino", "openvino")
            openvino.save_model(openvino.convert_model(coded), out, compress_to_fp16=False)
