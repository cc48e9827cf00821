"""ArcFace IR-SE50: the published names, counts and shapes; where in the crop it looks."""

from __future__ import annotations

import pytest
import torch

from mien.errors import InputError
from mien.nets.arcface import ArcFace, face_window
from mien.nets.irse import SqueezeExcitation

FILE_BYTES = 175_367_323  # of model_ir_se50.pth


def test_state_is_that_of_the_published_file() -> None:
    with torch.device("meta"):
        state = ArcFace().state_dict()
    assert 0.998 < sum(t.numel() * t.element_size() for t in state.values()) / FILE_BYTES < 1
    assert list(state["body.3.shortcut_layer.0.weight"].shape) == [128, 64, 1, 1]
    assert "body.0.shortcut_layer.0.weight" not in state  # 64 to 64: every second value is taken
    assert list(state["body.23.res_layer.5.fc1.weight"].shape) == [32, 512, 1, 1]
    assert "body.24.res_layer.0.weight" not in state  # 3 + 4 + 14 + 3 units
    assert list(state["output_layer.3.weight"].shape) == [512, 512 * 7 * 7]
    assert {name.split(".")[0] for name in state} == {"input_layer", "body", "output_layer"}


def test_squeeze_and_excitation_is_its_equation() -> None:
    torch.manual_seed(0)
    block, x = SqueezeExcitation(32), torch.randn(2, 32, 5, 5)
    means = x.mean((2, 3))
    hidden = (means @ block.fc1.weight.flatten(1).T).clamp(min=0)
    scale = torch.sigmoid(hidden @ block.fc2.weight.flatten(1).T)
    torch.testing.assert_close(block(x), x * scale[:, :, None, None])


@pytest.mark.parametrize("side", [64, 256, 512])
def test_it_looks_at_rows_35_to_223_and_columns_32_to_220_of_256(side: int) -> None:
    along = (torch.arange(side) + 0.5) / side * 256  # in px of 256
    img = torch.stack([along[:, None].expand(side, side), along[None].expand(side, side), torch.zeros(side, side)])[
        None
    ]
    rows, columns = face_window(img)[0, 0, :, 50], face_window(img)[0, 1, 50]
    assert rows[0].item() == pytest.approx(35 + 188 / 224, abs=0.5)
    assert rows[-1].item() == pytest.approx(223 - 188 / 224, abs=0.5)
    assert columns[0].item() == pytest.approx(32 + 188 / 224, abs=0.5)
    assert columns[-1].item() == pytest.approx(220 - 188 / 224, abs=0.5)


def test_identities_are_unit_vectors_and_the_size_of_the_crop_hardly_matters() -> None:
    torch.manual_seed(0)
    net = ArcFace().eval().requires_grad_(False)
    small = torch.nn.functional.interpolate(torch.rand(2, 3, 16, 16), (64, 64), mode="bicubic")
    large = torch.nn.functional.interpolate(small, (256, 256), mode="bilinear")
    a, b = net.describe(small), net.describe(large)
    assert a.shape == (2, 512)
    torch.testing.assert_close(a.norm(dim=1), torch.ones(2))
    assert ((a * b).sum(1) > 0.999).all()


def test_other_shapes_are_refused() -> None:
    with torch.device("meta"):
        net = ArcFace()
        with pytest.raises(InputError, match=r"must be \[N, 3, 112, 112\]"):
            net(torch.zeros(1, 3, 128, 128))
        with pytest.raises(InputError, match="must be square"):
            net.describe(torch.zeros(1, 3, 128, 100))
