"""Run a generator that `export` wrote: `mapping` and `synthesis` by OpenVINO or ONNX Runtime, without gradients.

A folder holds two networks and `export.json`, which says what they take and how precisely they compute.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mien.errors import InputError, MissingExtraError, WeightsError

__all__ = ["FACTS", "FORMATS", "ExportedGenerator", "ExportedTranslator", "library"]

FORMATS = {"openvino": ".xml", "onnx": ".onnx"}
"""What can be written, and how its files end."""

FACTS = "export.json"

Array = np.ndarray[Any, Any]
Run = Callable[[dict[str, Array]], Array]

SIZES = ("z_dim", "c_dim", "w_dim", "num_ws", "img_resolution", "img_channels")
HINT = "write it again with mien export"
OPENVINO_TYPES = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}  # of what is not in 8 bits


def library(name: str, extra: str) -> Any:
    """Import an optional library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as err:
        raise MissingExtraError(f"this needs {name}", hint=f"pip install 'mien[{extra}]'") from err


def _openvino(path: Path, precision: str, threads: int | None) -> Run:
    openvino = library("openvino", "openvino")
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": OPENVINO_TYPES[precision], "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    model = openvino.Core().compile_model(str(path), "CPU", config)
    return lambda inputs: model(inputs)[0]


def _onnx(path: Path, _precision: str, threads: int | None) -> Run:
    runtime = library("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]


def _start(path: Path, kind: str, precision: str, threads: int | None) -> Run:
    """Load one network.

    Raises:
        MissingExtraError: the library of its format is not installed.
        WeightsError: the file is damaged.
    """
    try:
        return {"openvino": _openvino, "onnx": _onnx}[kind](path, precision, threads)
    except MissingExtraError:
        raise
    except Exception as err:  # the libraries' errors have no common class but this
        raise WeightsError(f"{path.parent}: {err}"[:300], hint=HINT) from err


class ExportedGenerator:
    """A generator of a folder that `mien export` wrote, on the CPU; the sizes are those of the network itself.

    Args:
        folder: with `export.json` and the two networks.
        threads: of the processor; None for all.

    Raises:
        MissingExtraError: the library of its format is not installed.
        WeightsError: not such a folder, or damaged.
    """

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            self.format, self.precision, self.batch = facts["format"], facts["precision"], facts["batch"]
            self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.img_resolution, self.img_channels = (
                int(facts[name]) for name in SIZES
            )
            suffix = FORMATS[self.format]
            OPENVINO_TYPES[self.precision]
        except (OSError, ValueError, LookupError, TypeError) as err:
            raise WeightsError(f"{folder} holds no exported generator", hint=HINT) from err
        self._mapping = _start(folder / f"mapping{suffix}", self.format, "fp32", threads)
        self._synthesis = _start(folder / f"synthesis{suffix}", self.format, self.precision, threads)

    def _check(self, name: str, x: Tensor, shape: tuple[int, ...]) -> Array:
        if tuple(x.shape[1:]) != shape or len(x) < 1 or (self.batch is not None and len(x) != self.batch):
            wanted = ", ".join(map(str, ("N" if self.batch is None else self.batch, *shape)))
            raise InputError(f"{name} must be [{wanted}], got {list(x.shape)}", hint="export with another --batch")
        return np.ascontiguousarray(x.detach().cpu().float().numpy())

    def mapping(self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0) -> Tensor:
        """Carry z [N, z_dim] (and labels c [N, c_dim]) to ws [N, num_ws, w_dim], all rows truncated alike."""
        inputs = {"z": self._check("z", z, (self.z_dim,)), "psi": np.array([truncation_psi], dtype=np.float32)}
        if self.c_dim > 0:
            if c is None:
                raise InputError("this generator has classes", hint="give c")
            inputs["c"] = self._check("c", c, (self.c_dim,))
        return torch.from_numpy(self._mapping(inputs).copy())

    def synthesis(self, ws: Tensor) -> Tensor:
        """Render ws [N, num_ws, w_dim] as float32 [N, img_channels, img_resolution, img_resolution]; constant noise."""
        inputs = {"ws": self._check("ws", ws, (self.num_ws, self.w_dim))}
        return torch.from_numpy(self._synthesis(inputs).copy())


class ExportedTranslator:
    """A network from picture to picture of a folder that `mien export` wrote, on the CPU.

    Args:
        folder: with `export.json` and the network.
        threads: of the processor; None for all.

    Raises:
        MissingExtraError: the library of its format is not installed.
        WeightsError: not such a folder, or damaged.
    """

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            self.name, self.format, self.precision = str(facts["name"]), facts["format"], facts["precision"]
            self.batch, self.img_resolution = facts["batch"], int(facts["img_resolution"])
            path = folder / f"translator{FORMATS[self.format]}"
            OPENVINO_TYPES[self.precision]
        except (OSError, ValueError, LookupError, TypeError) as err:
            raise WeightsError(f"{folder} holds no exported translator", hint=HINT) from err
        self._run = _start(path, self.format, self.precision, threads)

    def __call__(self, img: Tensor) -> Tensor:
        """Draw img [N, 3, S, S] in [-1, 1]; of a folder for batches of one size, any number of faces is cut into them.

        Raises:
            InputError: another shape.
        """
        side = self.img_resolution
        if img.ndim != 4 or tuple(img.shape[1:]) != (3, side, side):
            raise InputError(f"img must be [N, 3, {side}, {side}], got {list(img.shape)}")
        drawn = []
        for some in img.detach().cpu().float().split(self.batch or len(img)):
            short = (self.batch or len(some)) - len(some)
            whole = torch.cat([some, some[-1:].expand(short, -1, -1, -1)]) if short else some
            found = self._run({"img": np.ascontiguousarray(whole.numpy())})
            drawn.append(torch.from_numpy(found.copy())[: len(some)])
        return torch.cat(drawn)
