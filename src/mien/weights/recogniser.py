"""Somebody else's face recogniser, as an ONNX file, for scoring: faces of 112 px in, one vector a face out.

The contract is that of ArcFace's family: one input [N or 1, 3, 112, 112], float32, RGB in [-1,1]; one output [N, D].
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import InputError, MissingExtraError, WeightsError
from mien.nets.arcface import INPUT_PX, face_window

__all__ = ["OnnxRecogniser"]

SHAPE = (3, INPUT_PX, INPUT_PX)


class OnnxRecogniser:
    """Describe faces by an ONNX network; without gradients, on the CPU.

    Args:
        path: the .onnx file.

    Raises:
        MissingExtraError: the extra `recognisers` is not installed.
        WeightsError: no such file, or not a network of this contract.
    """

    def __init__(self, path: Path) -> None:
        try:
            runtime: Any = importlib.import_module("onnxruntime")
        except ImportError as err:
            raise MissingExtraError("ONNX files need a library", hint="pip install 'mien[recognisers]'") from err
        if not path.is_file():
            raise WeightsError(f"no recogniser at {path}", hint="give an .onnx file")
        try:
            self._session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as err:  # the library's errors have no common class but this
            message = f"{path.name}: no network that ONNX Runtime can read: {err}"
            raise WeightsError(message[:300], hint="get the file again") from err
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or tuple(inputs[0].shape[1:]) != SHAPE or len(outputs) != 1:
            shapes = ", ".join(str(tensor.shape) for tensor in inputs)
            message = f"{path.name} takes {shapes} and gives {len(outputs)} outputs"
            raise WeightsError(
                message, hint=f"a recogniser takes one [1, 3, {INPUT_PX}, {INPUT_PX}] and gives one vector"
            )
        self._input = inputs[0].name
        self._takes_one = inputs[0].shape[0] == 1

    def __call__(self, img: Tensor) -> Tensor:
        """Return unit vectors [N,D] of faces [N,3,112,112] in [-1,1], aligned as ArcFace's template."""
        if img.shape[1:] != SHAPE:
            raise InputError(f"faces must be [N, 3, {INPUT_PX}, {INPUT_PX}], got {list(img.shape)}")
        pixels = img.detach().cpu().float().numpy()
        batches = [pixels[i : i + 1] for i in range(len(pixels))] if self._takes_one else [pixels]
        rows = [self._session.run(None, {self._input: batch})[0].reshape(len(batch), -1) for batch in batches]
        return F.normalize(torch.from_numpy(np.concatenate(rows)).float(), dim=1).to(img.device)

    def describe(self, img: Tensor) -> Tensor:
        """Return unit vectors [N,D] of FFHQ-aligned crops [N,3,H,H] of any size in [-1,1]."""
        return self(face_window(img))
