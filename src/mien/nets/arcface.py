"""ArcFace IR-SE50: who a face is, as a unit vector of 512 numbers; two of one person point the same way.

A residual network of 50 layers with squeeze-and-excitation, under the names of InsightFace_Pytorch's file. It looks at
112 px of the face; `describe` takes that from an FFHQ-aligned crop as pSp does, so that identities can be compared with
what encoders report.

Source: Deng et al. 2019, Sec. 3.1, arXiv:1801.07698; the crop: Richardson et al. 2021, App. A, arXiv:2008.00951.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import InputError
from mien.nets.features import at_least_float32
from mien.nets.irse import WIDTHS, backbone, stem

__all__ = ["INPUT_PX", "ArcFace", "face_window"]

INPUT_PX = 112
FRAME_PX = 256
WINDOW = (35, 32, 188)  # top, left and side of the face inside an FFHQ crop of FRAME_PX


def face_window(img: Tensor) -> Tensor:
    """Cut the face out of an FFHQ-aligned crop: [N,3,H,H] of any size in [-1,1] to [N,3,112,112]."""
    if img.ndim != 4 or img.shape[1] != 3 or img.shape[2] != img.shape[3]:
        raise InputError(f"faces must be square, [N, 3, H, H], got {list(img.shape)}", hint="align the photo first")
    if img.shape[-1] > FRAME_PX:
        img = F.adaptive_avg_pool2d(img, FRAME_PX)
    elif img.shape[-1] < FRAME_PX:
        img = F.interpolate(img, (FRAME_PX, FRAME_PX), mode="bilinear")
    top, left, side = WINDOW
    return F.adaptive_avg_pool2d(img[:, :, top : top + side, left : left + side], INPUT_PX)


class ArcFace(nn.Module):
    """Tell faces apart: img [N,3,112,112] in [-1,1], aligned as ArcFace's template, to unit vectors [N,512]."""

    def __init__(self) -> None:
        super().__init__()
        self.init_kwargs: dict[str, Any] = {}
        self.input_layer, self.body = stem(3, WIDTHS[0]), backbone()
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(), nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)
        )

    def forward(self, img: Tensor) -> Tensor:
        """Return unit vectors [N,512] of faces [N,3,112,112]."""
        if img.shape[1:] != (3, INPUT_PX, INPUT_PX):
            raise InputError(f"faces must be [N, 3, {INPUT_PX}, {INPUT_PX}], got {list(img.shape)}")
        return F.normalize(at_least_float32(self.output_layer(self.body(self.input_layer(img)))), dim=1)

    def describe(self, img: Tensor) -> Tensor:
        """Return unit vectors [N,512] of FFHQ-aligned crops [N,3,H,H] of any size in [-1,1]."""
        identity: Tensor = self(face_window(img))
        return identity
