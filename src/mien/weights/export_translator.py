"""Write a network from picture to picture for OpenVINO or ONNX Runtime, compared with ours before it is there.

Source: the network is traced by torch.export, whose graph both formats are converted from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mien.errors import InputError
from mien.report import Sink, Step, ignore
from mien.weights.engine import FORMATS, ExportedTranslator
from mien.weights.export import arriving, check_parity, check_target, relative_rms, write_part
from mien.weights.quantize import MIN_FACES, quantize

__all__ = ["export_translator"]

PARITY_SEED = 0


def _examples(side_px: int, num: int) -> Tensor:
    """Smooth pictures [num, 3, S, S], to trace by and to compare."""
    rng = torch.Generator().manual_seed(PARITY_SEED)
    coarse = torch.rand(num, 3, 8, 8, generator=rng) * 2 - 1
    return nn.functional.interpolate(coarse, (side_px, side_px), mode="bicubic").clamp(-1, 1)


def _for_parity(img: Tensor, faces: Tensor | None, batch: int | None) -> Tensor:
    """Return the faces on which a network in 8 bits is compared: a quarter, which it is not calibrated on.

    Raises:
        InputError: too few faces, or of another side.
    """
    least = MIN_FACES * 4 // 3
    if faces is None or len(faces) < least or faces.shape[1:] != img.shape[1:]:
        found = "none" if faces is None else str(list(faces.shape))
        side = img.shape[-1]
        raise InputError(f"int8 needs {least} aligned faces of {side} px or more, got {found}", hint="give --faces")
    num = len(faces) // 4
    return faces[: num if batch is None else max(1, num // batch) * batch]


def _write_coded(net: nn.Module, path: Path, facts: dict[str, Any], img: Tensor, faces: Tensor) -> None:
    exact = path.with_name("exact.onnx")
    write_part(net, exact, {**facts, "format": "onnx"}, {"img": img}, "drawn")
    quantize(exact, path, faces, at_once=facts["batch"] or 1)
    exact.unlink()


def export_translator(
    net: nn.Module,
    folder: Path,
    *,
    name: str,
    img_resolution: int,
    format: str = "openvino",  # noqa: A002
    precision: str = "fp32",
    batch: int | None = None,
    faces: Tensor | None = None,
    on_step: Sink = ignore,
) -> dict[str, Any]:
    """Write a translator in another format, once its pictures are found to be ours.

    Args:
        net: takes img [N, 3, S, S] in [-1, 1] and gives the same shape; on the CPU.
        folder: new or empty; it appears with everything in it, or not at all.
        name: what it is called when it draws.
        img_resolution: side S.
        format: openvino or onnx.
        precision: in which it will compute; the weights are kept in float32. bf16 is for OpenVINO only. int8 rounds
            weights and maps as `faces` need it.
        batch: the only batch size that the file takes; None for any.
        faces: [N, 3, S, S] in [-1, 1], aligned; for int8. A quarter of them only measures the error.
        on_step: hears of the parts.

    Returns:
        What `export.json` holds, with `rms_img`: the error against ours over the standard deviation.

    Raises:
        InputError: a choice that is not there, a folder with something in it, or too few faces.
        MissingExtraError: the library of the format is not installed.
        WeightsError: the error is above `MAX_RMS`.
    """
    is_coded = precision == "int8"
    check_target(folder, format, "fp32" if is_coded else precision, batch)
    img = _examples(img_resolution, 2 if batch is None else batch)
    seen = _for_parity(img, faces, batch) if is_coded else img
    net.eval()
    with torch.no_grad():
        expected = net(seen)
    facts: dict[str, Any] = dict(name=name, format=format, precision=precision, batch=batch)
    facts |= dict(img_resolution=img_resolution)
    with arriving(folder, facts) as place:
        on_step(Step("translator", 0, 2))
        path = place / f"translator{FORMATS[format]}"
        if is_coded:
            assert faces is not None
            _write_coded(net, path, facts, img, faces[len(seen) :])
        else:
            write_part(net, path, facts, {"img": img}, "drawn")
        on_step(Step("parity", 1, 2))
        facts["rms_img"] = relative_rms(ExportedTranslator(place)(seen), expected)
        check_parity(facts)
    on_step(Step("export", 2, 2))
    return facts
