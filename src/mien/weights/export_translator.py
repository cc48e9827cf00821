"""Write a network from picture to picture for OpenVINO or ONNX Runtime, compared with ours before it is there.

Source: the network is traced by torch.export, whose graph both formats are converted from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mien.report import Sink, Step, ignore
from mien.weights.engine import FORMATS, ExportedTranslator
from mien.weights.export import arriving, check_parity, check_target, relative_rms, write_part

__all__ = ["export_translator"]

PARITY_SEED = 0


def export_translator(
    net: nn.Module,
    folder: Path,
    *,
    name: str,
    img_resolution: int,
    format: str = "openvino",  # noqa: A002
    precision: str = "fp32",
    batch: int | None = None,
    on_step: Sink = ignore,
) -> dict[str, Any]:
    """Write a translator in another format, once its pictures are found to be ours.

    Args:
        net: takes img [N, 3, S, S] in [-1, 1] and gives the same shape; on the CPU.
        folder: new or empty; it appears with everything in it, or not at all.
        name: what it is called when it draws.
        img_resolution: side S.
        format: openvino or onnx.
        precision: in which it will compute; the weights are kept in float32. bf16 is for OpenVINO only.
        batch: the only batch size that the file takes; None for any.
        on_step: hears of the parts.

    Returns:
        What `export.json` holds, with `rms_img`: the error against ours over the standard deviation.

    Raises:
        InputError: a choice that is not there, or a folder with something in it.
        MissingExtraError: the library of the format is not installed.
        WeightsError: the error is above `MAX_RMS`.
    """
    check_target(folder, format, precision, batch)
    rng = torch.Generator().manual_seed(PARITY_SEED)
    coarse = torch.rand(2 if batch is None else batch, 3, 8, 8, generator=rng) * 2 - 1
    img = nn.functional.interpolate(coarse, (img_resolution, img_resolution), mode="bicubic").clamp(-1, 1)
    net.eval()
    with torch.no_grad():
        expected = net(img)
    facts: dict[str, Any] = dict(name=name, format=format, precision=precision, batch=batch)
    facts |= dict(img_resolution=img_resolution)
    with arriving(folder, facts) as place:
        on_step(Step("translator", 0, 2))
        write_part(net, place / f"translator{FORMATS[format]}", facts, {"img": img}, "drawn")
        on_step(Step("parity", 1, 2))
        facts["rms_img"] = relative_rms(ExportedTranslator(place)(img), expected)
        check_parity(facts)
    on_step(Step("export", 2, 2))
    return facts
