"""The scorer hands on what the face network says."""

from __future__ import annotations

import torch

from mien.edits.attributes import SHIPPED, face_scorer
from mien.nets.features import FaceNet


def test_every_shipped_attribute_is_measured_as_the_network_says() -> None:
    torch.manual_seed(0)
    net = FaceNet(channels=(4, 4, 4, 4), num_blocks=(0, 0, 0, 0), embedding_dim=8, norm=False).eval()
    img = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        scores, read = face_scorer(net)(img), net(img)
    torch.testing.assert_close(scores.attributes["yaw"], read.pose[:, 0])
    torch.testing.assert_close(scores.attributes["smile"], read.smile)
    torch.testing.assert_close(scores.identity, read.identity)
    assert all({a.name, *a.keep} <= set(scores.attributes) for a in SHIPPED)
