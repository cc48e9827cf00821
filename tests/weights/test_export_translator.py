"""Translators written for other engines draw as ours do, at any batch; what cannot be written is refused first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mien.errors import InputError, WeightsError
from mien.nets.student import Student
from mien.weights.engine import ExportedTranslator
from mien.weights.export_translator import export_translator


@pytest.fixture(scope="module")
def net() -> Student:
    torch.manual_seed(0)
    made = Student(widths=(4, 8), num_blocks=(0, 1), img_resolution=16)
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made.eval().requires_grad_(False)


def test_openvino_draws_as_ours_at_any_batch(net: Student, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    out = tmp_path / "out"
    facts = export_translator(net, out, name="toon", img_resolution=16)
    assert facts["rms_img"] < 1e-5 and json.loads((out / "export.json").read_text()) == facts
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    exported = ExportedTranslator(out, threads=1)
    assert (exported.name, exported.img_resolution) == ("toon", 16)
    for num in (1, 3):
        img = torch.rand(num, 3, 16, 16) * 2 - 1
        torch.testing.assert_close(exported(img), net(img), atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match=r"img must be \[N, 3, 16, 16\], got \[1, 3, 24, 24\]"):
        exported(torch.zeros(1, 3, 24, 24))
    with pytest.raises(InputError, match="is not an empty folder"):
        export_translator(net, out, name="toon", img_resolution=16)
    (out / "translator.xml").write_text("<net")
    with pytest.raises(WeightsError, match="out"):
        ExportedTranslator(out, threads=1)


def test_a_file_for_one_batch_size_takes_any_number_of_faces(net: Student, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    export_translator(net, tmp_path / "out", name="toon", img_resolution=16, batch=4)
    img = torch.rand(6, 3, 16, 16) * 2 - 1
    drawn = ExportedTranslator(tmp_path / "out", threads=1)(img)
    torch.testing.assert_close(drawn, net(img), atol=1e-5, rtol=1e-4)


def test_onnx_draws_as_ours(net: Student, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    facts = export_translator(net, tmp_path / "out", name="toon", img_resolution=16, format="onnx")
    img = torch.rand(3, 3, 16, 16) * 2 - 1
    assert facts["rms_img"] < 1e-5
    torch.testing.assert_close(ExportedTranslator(tmp_path / "out", threads=1)(img), net(img), atol=1e-5, rtol=1e-4)


def test_refusals(net: Student, tmp_path: Path) -> None:
    for wrong, message in (
        ({"format": "tflite"}, "no format named 'tflite'"),
        ({"precision": "int4"}, "precision must be"),
        ({"batch": 0}, "batch must be 1 to"),
        ({"format": "onnx", "precision": "bf16"}, "no bf16 convolutions"),
    ):
        with pytest.raises(InputError, match=message):
            export_translator(net, tmp_path / "out", name="toon", img_resolution=16, **wrong)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="holds no exported translator"):
        ExportedTranslator(tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("form", "batch"), [("onnx", None), ("openvino", None), ("openvino", 3)])
def test_eight_bits_are_fitted_to_faces(net: Student, form: str, batch: int | None, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    pytest.importorskip(form if form == "openvino" else "onnxruntime", reason="an extra is not installed")
    torch.manual_seed(1)
    faces = torch.nn.functional.interpolate(torch.rand(24, 3, 4, 4) * 2 - 1, 16, mode="bilinear")
    known: dict[str, Any] = dict(name="toon", img_resolution=16, format=form, batch=batch)
    facts = export_translator(net, tmp_path / "out", precision="int8", faces=faces, **known)
    assert 1e-4 < facts["rms_img"] < 0.1 and facts["precision"] == "int8"
    kept = {path.suffix for path in (tmp_path / "out").iterdir()}
    assert kept == ({".json", ".onnx"} if form == "onnx" else {".json", ".xml", ".bin"})
    drawn, expected = ExportedTranslator(tmp_path / "out", threads=1)(faces[:5]), net(faces[:5])
    assert (drawn - expected).square().mean().sqrt() < 0.1 * expected.std()
    with pytest.raises(InputError, match="int8 needs 10 aligned faces of 16 px or more, got none"):
        export_translator(net, tmp_path / "no", precision="int8", **known)
    with pytest.raises(InputError, match=r"got \[24, 3, 8, 8\]"):
        export_translator(net, tmp_path / "no", precision="int8", faces=faces[..., ::2, ::2], **known)
    assert not (tmp_path / "no").exists()
