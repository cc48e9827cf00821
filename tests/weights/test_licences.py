"""Terms: of names, of files, of what a run used; and what may not pass where commercial use is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mien.errors import InputError, WeightsError
from mien.nets.stylegan2 import Generator
from mien.weights.licences import licence_of, require_commercial, used_by
from mien.weights.load import save_generator, weights_digest
from mien.weights.zoo import find

pytestmark = pytest.mark.usefixtures("cache")


def make(path: Path, **provenance: object) -> Path:
    torch.manual_seed(0)
    kwargs = dict(channel_base=64, channel_max=4)
    G = Generator(4, 0, 4, 8, 3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=kwargs)
    save_generator(G, path, provenance=provenance)
    return path


def test_names_and_files_have_terms(tmp_path: Path) -> None:
    assert licence_of("stylegan2-ffhq-1024").commercial == "no"  # and nothing is fetched to know it
    assert licence_of("faces-64").name == "research and demonstration"
    assert licence_of("encoder-faces-64") == licence_of("faces-64")  # it says only what it was trained for
    assert licence_of(make(tmp_path / "open.safetensors", licence="CC0-1.0")).commercial == "yes"
    assert licence_of(make(tmp_path / "odd.safetensors", licence="ask me")).commercial == "unknown"
    assert licence_of(make(tmp_path / "mute.safetensors")).name == "not stated"


@pytest.mark.parametrize(
    ("words", "commercial"),
    [
        ("Apache-2.0", "yes"),
        ("CC BY 4.0", "yes"),
        ("CC-BY-SA-4.0", "yes"),
        ("CC BY-NC 4.0", "no"),
        ("CC-BY-NC-SA-4.0", "no"),
        ("MIT, but for research only", "no"),
        ("non-commercial", "no"),
        ("mine", "unknown"),
    ],
)
def test_words_are_understood(words: str, commercial: str, tmp_path: Path) -> None:
    assert licence_of(make(tmp_path / "a.safetensors", licence=words)).commercial == commercial


def test_commercial_lets_only_the_allowed_pass(tmp_path: Path) -> None:
    require_commercial(["lpips-vgg", "vgg16", make(tmp_path / "open.safetensors", licence="MIT")])
    with pytest.raises(WeightsError, match="e4e-ffhq forbids commercial use") as info:
        require_commercial(["vgg16", "e4e-ffhq"])
    assert "research and evaluation only" in info.value.hint
    with pytest.raises(WeightsError, match="is not known: not stated"):
        require_commercial(["wikiart-1024"])


def test_a_report_tells_what_a_run_used(tmp_path: Path, cache: Path) -> None:
    pinned = find("arcface-ir-se50").sha256
    (cache / "hashes.json").write_text(json.dumps({"psp-ffhq.pt": {"sha256": "ab" * 32, "url": ""}}))
    report = {
        "weights": {"faces-64.safetensors": weights_digest("faces-64"), "foreign.pkl": "0" * 64},
        "steps": [{"judge": {"weights": {"arcface.pth": pinned}}}, {"start": "ab" * 32, "other": "cd" * 32}],
        "options": {"network": "toonify", "seed": 3},
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    used = {each.name: each.licence.name for each in used_by(tmp_path)}
    assert used == {
        "faces-64.safetensors": "research and demonstration",
        "foreign.pkl": "not stated",
        "arcface.pth": "MIT, trained on MS-Celeb-1M",
        "ab" * 32: "MIT, made from NVIDIA's weights",
        "toonify": "MIT, made from NVIDIA's weights",
    }
    assert [each.name for each in used_by(tmp_path / "report.json")] == list(used)


def test_reports_without_weights_and_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text('{"a": [1, "b"]}')
    with pytest.raises(InputError, match="mentions no weights"):
        used_by(tmp_path / "empty.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="cannot read"):
        used_by(tmp_path / "bad.json")
    with pytest.raises(InputError, match="cannot read"):
        used_by(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no report\.json and no options\.json"):
        used_by(tmp_path)
