"""The detector's geometry against its definition, and the network's shapes, size and folding."""

from __future__ import annotations

import math

import pytest
import torch

from mien.nets.detector import STRIDES, Cells, Detector, cells, decode, encode, fold_norm, giou, iou, nms


@pytest.fixture(scope="module")
def net() -> Detector:
    torch.manual_seed(0)
    return Detector(channels=(8, 8, 8, 16, 16), num_blocks=(1, 1, 1), pyramid_channels=8, norm=True)


def random_boxes(num: int, *, seed: int = 0) -> torch.Tensor:
    middle, half = 100 * torch.rand(2, num, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([middle - half, middle + half], dim=-1)


def test_cells_stand_in_the_middle_of_their_squares():
    at = cells(64, 96)
    assert len(at.centres) == len(at.strides) == 8 * 12 + 4 * 6 + 2 * 3
    assert at.centres[:2].tolist() == [[4, 4], [12, 4]]  # x first
    assert at.centres[12].tolist() == [4, 12]
    assert at.centres[8 * 12].tolist() == [8, 8]
    assert at.centres[-1].tolist() == [80, 48]
    assert at.strides.unique().tolist() == list(STRIDES)


def test_decode_is_its_definition():
    at = Cells(torch.tensor([[20.0, 36.0]]), torch.tensor([8.0]))
    raw = torch.tensor([[0.5, -1.0, math.log(2), math.log(3), *range(10)]])
    boxes, points = decode(raw, at)
    assert boxes[0].tolist() == pytest.approx([24 - 8, 28 - 12, 24 + 8, 28 + 12])
    assert points[0, 0].tolist() == [20, 36 + 8]
    assert points[0, 4].tolist() == [20 + 64, 36 + 72]


def test_encode_inverts_decode():
    at = cells(64, 64)
    raw = torch.randn(3, len(at.strides), 14, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(encode(*decode(raw, at), at), raw, atol=1e-4, rtol=1e-4)


def test_iou_and_giou_of_known_boxes():
    a = torch.tensor([0.0, 0, 2, 2])
    cases = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 4, 2], [4, 0, 6, 2]])
    assert iou(a, cases).tolist() == pytest.approx([1, 1 / 7, 0, 0])
    assert giou(a, cases).tolist() == pytest.approx([1, 1 / 7 - 2 / 9, 0, -1 / 3])


def test_nms_is_its_definition():
    boxes, scores = random_boxes(60), torch.rand(60, generator=torch.Generator().manual_seed(2))
    kept: list[int] = []
    for i in sorted(range(60), key=lambda i: -float(scores[i])):
        if all(float(iou(boxes[i], boxes[j])) <= 0.3 for j in kept):
            kept.append(i)
    assert nms(boxes, scores, max_iou=0.3).tolist() == kept
    assert nms(boxes[:0], scores[:0], max_iou=0.3).tolist() == []


def test_forward_says_one_face_a_cell_and_starts_with_nearly_none(net):
    found = net.eval()(torch.zeros(2, 3, 64, 96))
    num = len(cells(64, 96).strides)
    assert found.logits.shape == (2, num)
    assert found.boxes.shape == (2, num, 4)
    assert found.points.shape == (2, num, 5, 2)
    assert found.logits.sigmoid().max() < 0.05
    assert (found.boxes[..., 2:] > found.boxes[..., :2]).all()


def test_the_picture_must_be_whole_cells(net):
    with pytest.raises(AssertionError, match="not multiples of 32: 64x90"):
        net(torch.zeros(1, 3, 64, 90))


def test_every_number_learns_but_the_refiner_apart(net):
    found = net.train()(torch.randn(2, 3, 64, 64))
    (found.logits.sum() + found.boxes.square().mean() + found.points.square().mean()).backward()
    idle = {name for name, parameter in net.named_parameters() if parameter.grad is None}
    assert idle == {f"refiner.{name}" for name, _ in net.refiner.named_parameters()}
    net.zero_grad(set_to_none=True)


def test_fold_norm_changes_nothing_but_the_layers(net):
    net.train()
    for seed in range(3):  # running statistics that are not 0 and 1
        net(3 * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) + 1)
    folded = fold_norm(net)
    img = torch.randn(1, 3, 96, 64)
    for ours, theirs in zip(folded(img), net.eval()(img), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert folded.init_kwargs == {**net.init_kwargs, "norm": False}


def test_the_default_network_is_under_a_megabyte_in_half_precision():
    assert sum(parameter.numel() for parameter in Detector().parameters()) * 2 < 950_000
