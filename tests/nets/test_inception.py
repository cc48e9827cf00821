"""Inception of FID: counts and names of the published file, and what makes it differ from the published network."""

from __future__ import annotations

import pytest
import torch

from mien.errors import InputError
from mien.nets.inception import Inception, resized_as_tensorflow_1

TORCHVISION, AUX = 27_161_264, 3_326_696  # documented, with the auxiliary classifier, and that one's layers
FILE_BYTES, FILE_TENSORS = 95_628_359, 566  # of pt_inception-2015-12-05


def test_state_is_that_of_the_published_file() -> None:
    with torch.device("meta"):
        net = Inception()
    state = net.state_dict()
    assert sum(p.numel() for p in net.parameters()) == TORCHVISION - AUX + 8 * (2048 + 1)
    assert len(state) == FILE_TENSORS
    assert 0.997 < sum(t.numel() * t.element_size() for t in state.values()) / FILE_BYTES < 1
    assert list(state["Mixed_6b.branch7x7_2.conv.weight"].shape) == [128, 128, 1, 7]
    assert list(state["Mixed_6b.branch7x7dbl_2.conv.weight"].shape) == [128, 128, 7, 1]
    assert list(state["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape) == [384, 384, 3, 1]
    assert list(state["fc.weight"].shape) == [1008, 2048]
    assert net.Mixed_5b.branch1x1.bn.eps == 0.001


@pytest.fixture(scope="module")
def net() -> Inception:
    torch.manual_seed(0)
    return Inception().eval().requires_grad_(False)


def test_shapes_along_the_way(net: Inception) -> None:
    seen: dict[str, list[int]] = {}
    hooks = [
        block.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: list(out.shape[1:])}))
        for name, block in net.named_children()
    ]
    logits = net(torch.zeros(1, 3, 64, 48))
    for hook in hooks:
        hook.remove()
    assert logits.shape == (1, 1008)
    assert seen["Conv2d_2b_3x3"] == [64, 147, 147]
    assert seen["Conv2d_4a_3x3"] == [192, 71, 71]
    assert [seen[f"Mixed_5{c}"] for c in "bcd"] == [[256, 35, 35], [288, 35, 35], [288, 35, 35]]
    assert [seen[f"Mixed_6{c}"] for c in "abcde"] == [[768, 17, 17]] * 5
    assert [seen[f"Mixed_7{c}"] for c in "abc"] == [[1280, 8, 8], [2048, 8, 8], [2048, 8, 8]]


def only_pool(block: torch.nn.Module, x: torch.Tensor, channels: int) -> torch.Tensor:
    """What the pooling path hands on, with its convolution made the identity."""
    unit = block.branch_pool
    kept = {name: t.clone() for name, t in unit.state_dict().items()}
    unit.conv.weight.zero_()
    for i in range(unit.conv.weight.shape[0]):
        unit.conv.weight[i, i] = 1
    unit.bn.eps = 0.0
    out = block(x)[:, -channels:]
    unit.bn.eps = 0.001
    unit.load_state_dict(kept)
    return out


def test_averages_leave_the_padding_out(net: Inception) -> None:
    ones = torch.ones(1, 192, 6, 6)
    torch.testing.assert_close(only_pool(net.Mixed_5b, ones, 32), torch.ones(1, 32, 6, 6))


def test_the_last_block_pools_by_maximum(net: Inception) -> None:
    x = torch.zeros(1, 2048, 5, 5)
    x[0, :, 2, 2] = 9
    pooled = only_pool(net.Mixed_7c, x, 192)[0, 0]
    assert pooled[1:4, 1:4].unique().tolist() == [9]
    assert pooled[0].unique().tolist() == [0]
    x = torch.zeros(1, 1280, 5, 5)
    x[0, :, 2, 2] = 9
    assert only_pool(net.Mixed_7b, x, 192)[0, 0, 1:4, 1:4].unique().tolist() == pytest.approx([1])


def test_resizing_is_tensorflows() -> None:
    """Worked out by hand: positions are i * in / out, and past the last sample it is repeated."""
    row = torch.tensor([[[[0.0, 10.0]]]])
    assert resized_as_tensorflow_1(row, 4)[0, 0].tolist() == [[0, 5, 10, 10]] * 4
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert resized_as_tensorflow_1(ramp, 4)[0, 0, 0].tolist() == [0, 2, 4, 6]
    img = torch.rand(1, 3, 299, 299)
    torch.testing.assert_close(resized_as_tensorflow_1(img), img)


def test_black_and_white_reach_the_network_as_its_file_scales_them(net: Inception) -> None:
    seen: list[torch.Tensor] = []
    hook = net.Conv2d_1a_3x3.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    net.describe(torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 3, 299, 299))
    hook.remove()
    assert seen[0][0].unique().tolist() == pytest.approx([-1])
    assert seen[0][1].unique().tolist() == pytest.approx([127 / 128])


def test_other_shapes_are_refused(net: Inception) -> None:
    with pytest.raises(InputError, match=r"must be \[N, 3, H, W\]"):
        net.describe(torch.zeros(3, 64, 64))
