"""What is reported can be read back from TensorBoard's own files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from mien.errors import MissingExtraError
from mien.report import Step
from mien.track import tee, tensorboard


def test_tee_tells_everyone_in_order() -> None:
    heard: list[str] = []
    tee(lambda _: heard.append("first"), lambda _: heard.append("second"))(Step("work", 1, 2))
    assert heard == ["first", "second"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_numbers_and_pictures_reach_tensorboard(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs mien[track]")
    PIL.Image.new("RGB", (3, 2), (255, 0, 0)).save(tmp_path / "samples.png")
    with tensorboard(tmp_path / "events") as sink:
        sink(Step("gan", 25, 100, {"loss/G": 0.5}, {"samples": tmp_path / "samples.png"}))
    read = events.EventAccumulator(str(tmp_path / "events")).Reload()
    (scalar,) = read.Scalars("gan/loss/G")
    assert (scalar.step, scalar.value) == (25, 0.5)
    (image,) = read.Images("gan/samples")
    assert (image.step, image.width, image.height) == (25, 3, 2)


def test_without_tensorboard_the_extra_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError) as caught, tensorboard(tmp_path):
        pass
    assert "mien[track]" in caught.value.hint
