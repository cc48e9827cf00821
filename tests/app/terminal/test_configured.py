"""Settings objects from text: by the type of each field, and what does not fit is named."""

from __future__ import annotations

import pytest

from mien.app.terminal.configured import configured
from mien.edits.find import FindConfig
from mien.errors import InputError
from mien.training.encoder import EncoderConfig
from mien.training.faces import FaceTrainConfig


def test_settings_are_read_by_their_type() -> None:
    assert configured(EncoderConfig, ["num_steps=7", "lr=0.5", "precision=fp32"]) == EncoderConfig(
        num_steps=7, lr=0.5, precision="fp32"
    )
    assert configured(FaceTrainConfig, ["channels=1,2", "num_blocks=0,1", "use_compile=true"]) == FaceTrainConfig(
        channels=(1, 2), num_blocks=(0, 1), use_compile=True
    )
    for text, message in [("beard=1", "no setting named 'beard'"), ("num_samples=x", "does not fit num_samples")]:
        with pytest.raises(InputError, match=message):
            configured(FindConfig, [text])
    for text in ("lr=inf", "lr=nan"):
        with pytest.raises(InputError, match="does not fit lr"):
            configured(EncoderConfig, [text])
    with pytest.raises(InputError, match="no setting named 'terms'"):
        configured(EncoderConfig, ["terms=1"])
