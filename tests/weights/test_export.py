"""Generators written for other engines give the pictures of ours, and what cannot be written is refused first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mien.errors import InputError, WeightsError
from mien.nets import stylegan1, stylegan2, stylegan3
from mien.weights.engine import ExportedGenerator
from mien.weights.export import export_generator

SIZES: dict[str, Any] = dict(z_dim=4, c_dim=2, w_dim=6, img_resolution=8, img_channels=3)


@pytest.fixture(scope="module")
def G() -> stylegan2.Generator:
    torch.manual_seed(0)
    net = stylegan2.Generator(**SIZES, mapping_kwargs={"num_layers": 1}, channel_base=64, channel_max=8)
    net.mapping.w_avg.normal_()
    for block in net.synthesis.blocks():
        for layer in block.layers():
            layer.noise_strength.data.fill_(0.3)
    return net.eval().requires_grad_(False)


def relative_rms(y: torch.Tensor, reference: torch.Tensor) -> float:
    return float((y - reference).square().mean().sqrt() / reference.std())


def check_parity(G: stylegan2.Generator, exported: ExportedGenerator, num: int, limit: float) -> None:
    z, c = torch.randn(num, G.z_dim), torch.eye(2)[torch.arange(num) % 2]
    ws = G.mapping(z, c, truncation_psi=0.4)
    assert relative_rms(exported.mapping(z, c, truncation_psi=0.4), ws) < 1e-5
    assert relative_rms(exported.synthesis(ws), G.synthesis(ws, noise_mode="const")) < limit


def test_openvino_gives_our_pictures_at_any_batch(G: stylegan2.Generator, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    facts = export_generator(G, tmp_path / "out")
    assert facts["rms_img"] < 1e-5
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == facts
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    exported = ExportedGenerator(tmp_path / "out", threads=1)
    for num in (1, 3):
        check_parity(G, exported, num, 1e-5)
    with pytest.raises(InputError, match=r"ws must be \[N, 4, 6\], got \[1, 3, 6\]"):
        exported.synthesis(torch.zeros(1, 3, 6))
    with pytest.raises(InputError, match="this generator has classes"):
        exported.mapping(torch.zeros(1, 4))
    with pytest.raises(InputError, match="is not an empty folder"):
        export_generator(G, tmp_path / "out")
    (tmp_path / "out" / "synthesis.xml").write_text("<net")
    with pytest.raises(WeightsError):
        ExportedGenerator(tmp_path / "out", threads=1)


@pytest.mark.slow
def test_openvino_in_bf16_errs_little_at_one_batch(G: stylegan2.Generator, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    export_generator(G, tmp_path / "out", precision="bf16", batch=2)
    exported = ExportedGenerator(tmp_path / "out", threads=1)
    check_parity(G, exported, 2, 0.015)
    with pytest.raises(InputError, match=r"z must be \[2, 4\], got \[1, 4\]"):
        exported.mapping(torch.zeros(1, 4), torch.zeros(1, 2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnx_gives_our_pictures_at_any_batch(G: stylegan2.Generator, tmp_path: Path) -> None:
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra onnx is not installed")
    export_generator(G, tmp_path / "out", format="onnx")
    exported = ExportedGenerator(tmp_path / "out", threads=1)
    for num in (1, 3):
        check_parity(G, exported, num, 1e-5)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (dict(format="tflite"), "no format named 'tflite'"),
        (dict(precision="int8"), "precision must be fp32 or bf16, got 'int8'"),
        (dict(format="onnx", precision="bf16"), "no bf16 convolutions"),
        (dict(batch=0), "batch must be 1 to 64, got 0"),
    ],
)
def test_a_choice_that_is_not_there_is_refused(
    G: stylegan2.Generator, tmp_path: Path, choice: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        export_generator(G, tmp_path / "out", **choice)
    assert not list(tmp_path.iterdir())


def of_family(name: str) -> Any:
    torch.manual_seed(0)
    sizes = SIZES | dict(c_dim=0)
    if name == "stylegan1":
        net: Any = stylegan1.Generator(**sizes, synthesis_kwargs=dict(channel_base=64, channel_max=8))
    else:
        kind = dict(conv_kernel=1, use_radial_filters=True) if name == "stylegan3-r" else {}
        net = stylegan3.Generator(
            **(sizes | dict(img_resolution=16)), channel_base=64, channel_max=8, num_layers=4, **kind
        )
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return net.eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("format_", "needed"), [("openvino", "openvino"), ("onnx", "onnxscript")])
@pytest.mark.parametrize("family", ["stylegan1", "stylegan3-t", "stylegan3-r"])
def test_every_family_gives_our_pictures_at_any_batch(tmp_path: Path, family: str, format_: str, needed: str) -> None:
    pytest.importorskip(needed, reason=f"the extra {format_} is not installed")
    G = of_family(family)
    assert export_generator(G, tmp_path / "out", format=format_)["rms_img"] < 1e-5
    exported, ws = ExportedGenerator(tmp_path / "out", threads=1), G.mapping(torch.randn(3, G.z_dim))
    assert relative_rms(exported.synthesis(ws), G.synthesis(ws, noise_mode="const")) < 1e-5


def test_a_folder_without_an_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no exported generator"):
        ExportedGenerator(tmp_path)
