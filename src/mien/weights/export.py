"""Write a generator for OpenVINO or ONNX Runtime: two networks in a folder, compared with ours before it is there.

`mapping` takes z [N, z_dim], psi [1] and, for a generator with classes, c [N, c_dim]; it gives ws [N, num_ws, w_dim].
`synthesis` takes ws and gives img [N, img_channels, img_resolution, img_resolution] with the constant noise.

Source: the networks are traced by torch.export, whose graph both formats are converted from.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor, nn

from mien.errors import InputError, MienError, WeightsError
from mien.nets.generator import Generator
from mien.nets.precision import PRECISIONS
from mien.report import Sink, Step, ignore
from mien.weights.engine import FACTS, FORMATS, SIZES, ExportedGenerator, library

__all__ = [
    "MAX_BATCH",
    "MAX_RMS",
    "arriving",
    "check_parity",
    "check_target",
    "export_generator",
    "relative_rms",
    "write_part",
]

MAX_RMS = {"fp32": 1e-3, "bf16": 0.05, "int8": 0.1}
"""Largest root mean square error of a picture, over its standard deviation, with which a file is still written."""

PARITY_SEED = 0
MAX_BATCH = 64

EXACT_VALUES = 512 * 17 * 17
"""Operations with at most so many values a picture stay in float32 among bf16: styles, demodulation, blocks to 16 px.

Their rounding errors are shared by many pixels, so these are most of the picture's error and little of its time.
"""


class _Mapping(nn.Module):
    """Mapping with truncation as an input."""

    w_avg: Tensor

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.net = G.mapping
        self.register_buffer("w_avg", G.w_avg.clone())

    def forward(self, z: Tensor, psi: Tensor, c: Tensor | None = None) -> Tensor:
        ws = self.net(z, c)
        return self.w_avg + psi * (ws - self.w_avg)


class _Synthesis(nn.Module):
    """Synthesis with its constant noise."""

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.net = G.synthesis

    def forward(self, ws: Tensor) -> Tensor:
        return self.net(ws, noise_mode="const")


@contextmanager
def _quietly() -> Iterator[None]:
    """Tracing and converting warn of what only their authors can change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _trace(net: nn.Module, examples: dict[str, Tensor], batch: int | None) -> Any:
    """Return the graph of `net` for any batch, or for one of `batch`."""
    shapes = None
    if batch is None:
        of_any = {0: torch.export.Dim("N", min=1, max=MAX_BATCH)}
        shapes = {name: None if name == "psi" else of_any for name in examples}
    with torch.no_grad():
        return torch.export.export(net.eval(), (), kwargs=examples, dynamic_shapes=shapes, strict=False)


def _keep_small_exact(path: Path) -> None:
    """Mark operations of an OpenVINO file for float32; its Python interface has no call for that.

    The attribute is that of `ov::DisableFP16Compression`, which OpenVINO's CPU plugin heeds for bf16, too.
    """
    tree = ElementTree.parse(path)
    for layer in tree.iterfind("layers/layer"):
        port = layer.find("output/port")
        if port is None or layer.get("type") in ("Const", "Parameter"):
            continue
        if math.prod(int(side.text or 1) for side in port.findall("dim")[1:]) > EXACT_VALUES:
            continue
        info = layer.find("rt_info")
        if info is None:
            info = ElementTree.Element("rt_info")
            layer.insert(0 if layer.find("data") is None else 1, info)
        ElementTree.SubElement(info, "attribute", name="precise", version="0")
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _write_openvino(graph: Any, path: Path, examples: dict[str, Tensor], batch: int | None, output: str) -> None:
    openvino = library("openvino", "openvino")
    model = openvino.convert_model(graph)
    model.outputs[0].get_tensor().set_names({output})
    sides = {name: [-1 if batch is None else batch, *x.shape[1:]] for name, x in examples.items()}
    model.reshape({**sides, **({"psi": [1]} if "psi" in sides else {})})
    openvino.save_model(model, path, compress_to_fp16=False)


def _write_onnx(graph: Any, path: Path, examples: dict[str, Tensor], _batch: int | None, output: str) -> None:
    library("onnxscript", "onnx")
    program = torch.onnx.export(graph, input_names=list(examples), output_names=[output], dynamo=True, verbose=False)
    assert program is not None
    program.save(path, external_data=False)


WRITERS = {"openvino": _write_openvino, "onnx": _write_onnx}


def write_part(net: nn.Module, path: Path, facts: Mapping[str, Any], examples: dict[str, Tensor], output: str) -> None:
    """Write one network in the format and for the batch size of `facts`; its inputs are those of `examples`."""
    batch = facts["batch"]
    WRITERS[facts["format"]](_trace(net, examples, batch), path, examples, batch, output)


@contextmanager
def arriving(folder: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a folder aside that holds `export.json`; it becomes `folder`, with the facts as they are then.

    Where something is raised, nothing is left.

    Raises:
        MienError: it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as aside, _quietly():
            place = Path(aside) / "export"
            place.mkdir()
            (place / FACTS).write_text(json.dumps(facts), encoding="utf-8")
            yield place
            (place / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            os.replace(place, folder)
    except OSError as err:
        raise MienError(f"cannot write {folder}: {err.strerror or err}", hint="choose another place") from err


def check_parity(facts: Mapping[str, Any]) -> None:
    """Refuse an export whose errors `rms_img`, and `rms_ws` of a generator, are above `MAX_RMS` or no numbers.

    Raises:
        WeightsError: they are.
    """
    limits = {"rms_img": MAX_RMS[facts["precision"]], "rms_ws": MAX_RMS["fp32"]}
    errors = {name: facts[name] for name in limits if name in facts}
    if not all(error <= limits[name] for name, error in errors.items()):
        words = ", ".join(f"{name.removeprefix('rms_')} by {error:.1%}" for name, error in errors.items())
        raise WeightsError(f"the exported network errs: {words}", hint="use --precision fp32 or the other --format")


def check_target(folder: Path, kind: str, precision: str, batch: int | None) -> None:
    """Refuse a format, a precision, a batch size or a folder that nothing can be written in.

    Raises:
        InputError: it is one of these.
        MissingExtraError: the library of the format is not installed.
    """
    if kind not in FORMATS:
        raise InputError(f"no format named {kind!r}", hint=f"known: {', '.join(FORMATS)}")
    if precision not in PRECISIONS:
        raise InputError(f"precision must be {' or '.join(PRECISIONS)}, got {precision!r}")
    if kind == "onnx" and precision != "fp32":
        raise InputError("ONNX Runtime has no bf16 convolutions on a CPU", hint="use --precision fp32, or openvino")
    if batch is not None and not 1 <= batch <= MAX_BATCH:
        raise InputError(f"batch must be 1 to {MAX_BATCH}, got {batch}", hint="leave it out for any batch")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder", hint="name a new folder")
    library(*{"openvino": ("openvino", "openvino"), "onnx": ("onnxscript", "onnx")}[kind])


def _examples(G: Generator, num: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(PARITY_SEED)
    found = {"z": torch.randn(num, G.z_dim, generator=generator), "psi": torch.tensor([0.7])}
    if G.c_dim > 0:
        found["c"] = torch.eye(G.c_dim)[torch.arange(num) % G.c_dim]
    return found


def relative_rms(y: Tensor, reference: Tensor) -> float:
    """Return the root mean square error of `y` over the standard deviation of what it should be."""
    return float((y - reference).square().mean().sqrt() / reference.std())


def export_generator(
    G: Generator,
    folder: Path,
    *,
    format: str = "openvino",  # noqa: A002
    precision: str = "fp32",
    batch: int | None = None,
    on_step: Sink = ignore,
) -> dict[str, Any]:
    """Write a generator in another format, once its pictures are found to be ours.

    Args:
        G: a generator of any family on the CPU; StyleGAN1's norms err too much in bf16.
        folder: new or empty; it appears with everything in it, or not at all.
        format: openvino or onnx.
        precision: in which synthesis will compute; the weights are kept in float32. bf16 is for OpenVINO only.
        batch: the only batch size that the networks take, a little faster; None for any.
        on_step: hears of the parts.

    Returns:
        What `export.json` holds, with `rms_ws` and `rms_img`: errors against ours over the standard deviation.

    Raises:
        InputError: a choice that is not there, a generator without z, a folder with something in it.
        MissingExtraError: the library of the format is not installed.
        WeightsError: the errors are above `MAX_RMS`.
    """
    if G.z_dim < 1:
        raise InputError("a generator without z cannot be exported", hint="give another network")
    check_target(folder, format, precision, batch)
    given = _examples(G, 2 if batch is None else batch)
    with torch.no_grad():
        ws = _Mapping(G)(**given)
        img = G.synthesis(ws, noise_mode="const")
    parts = {"mapping": (_Mapping(G), given, "ws"), "synthesis": (_Synthesis(G), {"ws": ws}, "img")}
    facts: dict[str, Any] = dict(format=format, precision=precision, batch=batch)
    facts |= {name: getattr(G, name) for name in SIZES}
    with arriving(folder, facts) as place:
        for done, (name, (net, examples, output)) in enumerate(parts.items()):
            on_step(Step(name, done, len(parts) + 1))
            write_part(net, place / f"{name}{FORMATS[format]}", facts, examples, output)
        if (format, precision) == ("openvino", "bf16"):
            _keep_small_exact(place / f"synthesis{FORMATS[format]}")
        on_step(Step("parity", len(parts), len(parts) + 1))
        exported = ExportedGenerator(place)
        facts["rms_ws"] = relative_rms(exported.mapping(given["z"], given.get("c"), 0.7), ws)
        facts["rms_img"] = relative_rms(exported.synthesis(ws), img)
        check_parity(facts)
    on_step(Step("export", len(parts) + 1, len(parts) + 1))
    return facts
