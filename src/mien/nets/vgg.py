"""The plain convolutional networks of ImageNet whose maps judge pictures: VGG16, VGG19 and AlexNet.

Their parameters have torchvision's names, so that its files of weights fit. Maps are asked for by the names of the
papers: `relu3_2` is the second layer of the third block, after its ReLU; `conv3_2` before it.

Source: Simonyan and Zisserman 2014, Table 1 (D and E), arXiv:1409.1556; Krizhevsky 2014, Sec. 5, arXiv:1404.5997.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import InputError

__all__ = ["CONTENT_LAYER", "DEPTHS", "STYLE_LAYERS", "VGG", "AlexNet", "Trunk", "normalized"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for pictures in [0,1]
WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Depth => number of convolutions in each of the five blocks."""

CLASSIFIER_PX = 224

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYER = "relu4_2"
"""The maps of VGG19 that style transfer compares; Gatys et al. 2016, Sec. 3, doi:10.1109/CVPR.2016.265."""


def normalized(img: Tensor) -> Tensor:
    """Bring `img` [N,3,H,W] in [-1,1] to ImageNet's mean and deviation.

    It is also LPIPS's scaling: shift 2 mean - 1, scale 2 std.
    """
    if img.ndim != 4 or img.shape[1] != 3:
        raise InputError(f"pictures must be [N, 3, H, W], got {list(img.shape)}")
    mean, std = (img.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (img - (2 * mean - 1)) / (2 * std)


class Trunk(nn.Module):
    """Convolutions and ReLUs in a row.

    Args:
        layers: in their order.
        names: of the layers whose maps can be asked for, by their index.
        min_px: smallest side of a picture that reaches the last of them.
    """

    default_layers: tuple[str, ...] = ()

    def __init__(self, layers: Sequence[nn.Module], names: Sequence[str], min_px: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.layer_names, self.min_px = tuple(names), min_px

    def maps(self, img: Tensor, layers: Sequence[str] | None = None) -> list[Tensor]:
        """Return the maps [N,C,h,w] of `img` [N,3,H,W] in [-1,1] after the layers of these names.

        Raises:
            InputError: no such layer, or pictures too small for one.
        """
        wanted = self.default_layers if layers is None else tuple(layers)
        if unknown := [name for name in wanted if name not in self.layer_names]:
            raise InputError(f"no layer {unknown[0]!r}", hint=f"known: {', '.join(filter(None, self.layer_names))}")
        if min(img.shape[-2:]) < self.min_px:
            raise InputError(f"pictures must be at least {self.min_px} px, got {list(img.shape[-2:])}")
        found: dict[str, Tensor] = {}
        x = normalized(img)
        for name, layer in zip(self.layer_names, self.features, strict=True):
            x = layer(x)
            if name in wanted:
                found[name] = x
            if len(found) == len(set(wanted)):
                break
        return [found[name] for name in wanted]


class VGG(Trunk):
    """VGG16 or VGG19, without batch norm.

    Args:
        depth: 16 or 19.
        with_classifier: with the three full layers, for `describe`.
        pooling: `max` as trained, or `avg`, which gives smoother gradients (Gatys et al. 2016, Sec. 2).
    """

    default_layers = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")

    def __init__(self, *, depth: int = 16, with_classifier: bool = False, pooling: str = "max") -> None:
        if depth not in DEPTHS or pooling not in ("max", "avg"):
            raise InputError(f"no VGG of depth {depth} with {pooling} pooling", hint="16 or 19, max or avg")
        layers: list[nn.Module] = []
        names: list[str] = []
        in_channels = 3
        for block, (width, count) in enumerate(zip(WIDTHS, DEPTHS[depth], strict=True), 1):
            for i in range(1, count + 1):
                layers += [nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU()]
                names += [f"conv{block}_{i}", f"relu{block}_{i}"]
                in_channels = width
            layers.append(nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2))
            names.append(f"pool{block}")
        super().__init__(layers, names, min_px=2 ** len(WIDTHS))
        self.init_kwargs: dict[str, Any] = {"depth": depth, "with_classifier": with_classifier, "pooling": pooling}
        self.classifier = _classifier() if with_classifier else None

    def describe(self, img: Tensor) -> Tensor:
        """Return the activations [N,4096] of the second full layer, for distances between sets of pictures.

        Source: Kynkäänniemi et al. 2019, Sec. 4, arXiv:1904.06991.
        """
        if self.classifier is None:
            raise InputError("this VGG has no full layers", hint="build it with_classifier=True")
        if img.shape[-2:] != (CLASSIFIER_PX, CLASSIFIER_PX):
            img = F.interpolate(img, (CLASSIFIER_PX, CLASSIFIER_PX), mode="bilinear", antialias=True)
        x = self.maps(img, ["pool5"])[0].flatten(1)  # [N, 512 * 7 * 7]
        described: Tensor = self.classifier[:5](x)  # to the second ReLU
        return described


def _classifier() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 1000),
    )


class AlexNet(Trunk):
    """AlexNet in its form of one tower, without the full layers."""

    default_layers = ("relu1", "relu2", "relu3", "relu4", "relu5")

    def __init__(self) -> None:
        layers = [
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
        ]
        names = "conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 relu5".split()
        super().__init__(layers, names, min_px=31)
        self.init_kwargs: dict[str, Any] = {}
