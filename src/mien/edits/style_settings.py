"""Settings of style transfer: our own, and those of the reference implementations under their names.

Source: the numbers are those of jcjohnson/neural-style, anishathalye/neural-style, crowsonkb/style-transfer-pytorch
and of PyTorch's tutorial; patches: Elnekave and Weiss 2022, arXiv:2203.11862.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from mien.edits.descent import OPTIMIZERS
from mien.edits.looks import Look
from mien.edits.style_terms import DISTANCES
from mien.errors import InputError
from mien.nets.vgg import CONTENT_LAYER, STYLE_LAYERS

__all__ = ["COLOURS", "PRESETS", "SMALLEST_PX", "STYLE_LOSSES", "StyleConfig", "for_look"]

STYLE_LOSSES = ("gram", "wasserstein", "sliced")
COLOURS = ("style", "match", "luminance")
STARTS = ("content", "recoloured", "noise")
SMALLEST_PX, LARGEST_PX = 16, 2048

STAND_IN_PX = 32  # where stand-ins begin: they see nothing large unless it is small

Weights = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class StyleConfig:
    """Settings of `stylize`; the defaults are those of our own setting `patches`, which needs no published network."""

    content_layers: Weights = field(default_factory=lambda: {"structure1": 1.0, "colour3": 1.0, "face3": 0.3})
    style_layers: Weights = field(default_factory=lambda: {"patch1": 1.0, "detail1": 1.0, "colour1": 1.0})
    style_loss: str = "sliced"
    distance: str = "relative"  # of maps and matrices; see `style_terms.DISTANCES`
    content_weight: float = 0.6
    style_weight: float = 49.0
    tv_weight: float = 0.2
    patch_px: int = 7  # of the sliced loss; maps of colours are compared pixel by pixel
    optimizer: str = "adam"
    lr: float = 0.03  # pixels are in [-1,1]
    final_lr: float = 0.05  # of Adam, the share of lr at the end of each size
    average: float = 0.95  # of Adam's iterates; 0 = the best one
    num_steps: int = 100  # at the coarsest size
    num_later_steps: int = 60  # at each finer one
    size_px: int = 512  # longest side of the result
    min_px: int = 32  # of the coarsest size; size_px = one size only
    scale_factor: float = math.sqrt(2)  # from one size to the next
    style_scale: float = 1.0  # longest side of a style, in those of the result: how large its strokes are
    start: str = "recoloured"  # the content in the colours of the heaviest style
    colours: str = "style"
    spare: float = 0.7  # how much of the content stays where the mask is 1
    seed: int = 0

    def __post_init__(self) -> None:
        known = {
            "style_loss": STYLE_LOSSES,
            "distance": DISTANCES,
            "optimizer": OPTIMIZERS,
            "start": STARTS,
            "colours": COLOURS,
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise InputError(f"no {name} named {getattr(self, name)!r}", hint=f"known: {', '.join(values)}")
        for name in ("content_weight", "style_weight", "tv_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a number from 0, got {getattr(self, name)}")
        if not SMALLEST_PX <= self.min_px <= self.size_px <= LARGEST_PX:
            what = f"sizes must be {SMALLEST_PX} <= min_px <= size_px <= {LARGEST_PX}"
            raise InputError(f"{what}, got {self.min_px} and {self.size_px}", hint="a larger picture needs more memory")
        if not (0 <= self.spare <= 1 and self.style_scale > 0 and self.scale_factor > 1 and self.patch_px >= 1):
            raise InputError("spare must be from 0 to 1, scales and patch_px positive, scale_factor above 1")
        if not self.style_layers or min([*self.style_layers.values(), *self.content_layers.values()]) < 0:
            raise InputError("layers need weights from 0, and one is needed for the style")

    @property
    def sizes_px(self) -> list[int]:
        """Longest sides, coarse to fine."""
        num = math.floor(math.log(self.size_px / self.min_px) / math.log(self.scale_factor) + 1e-6)
        return [round(self.size_px / self.scale_factor**i) for i in range(num, -1, -1)]


CAFFE = 224.0
"""How much larger the maps of the network that the first two authors used are than torchvision's: the same two losses
are customarily weighed 5 to 100 there and 1 to 10^6 here, a factor of 224 squared. A squared difference of maps counts
CAFFE**2 there, one of their products CAFFE**4."""


PRESETS: Mapping[str, StyleConfig] = MappingProxyType(
    {
        "patches": StyleConfig(),
        "neural-style": StyleConfig(  # jcjohnson: content 5, style 100, TV 1e-3 of a sum over pixels from 0 to 255
            content_layers={CONTENT_LAYER: 1.0},
            style_layers=dict.fromkeys(STYLE_LAYERS, 1.0),
            style_loss="gram",
            distance="squared",
            content_weight=5 * CAFFE**2,
            style_weight=100 * CAFFE**4,
            tv_weight=1e-3 * 127.5**2 * 512**2 / 2,
            optimizer="lbfgs",
            lr=1.0,
            average=0.0,
            num_steps=1000,
            min_px=512,
            start="noise",
        ),
        "anishathalye": StyleConfig(  # content 5 halved between two layers, style 500, TV 100, Adam at 10 of 255
            content_layers={CONTENT_LAYER: 0.5, "relu5_2": 0.5},
            style_layers=dict.fromkeys(STYLE_LAYERS, 0.2),
            style_loss="gram",
            distance="squared",
            content_weight=5 * CAFFE**2,
            style_weight=500 * CAFFE**4,
            tv_weight=100 * 127.5**2,
            lr=10 / 127.5,
            final_lr=1.0,
            average=0.0,
            num_steps=1000,
            min_px=512,
            start="noise",
        ),
        "crowson": StyleConfig(
            content_layers={CONTENT_LAYER: 1.0},
            style_layers={name: w / 341 for name, w in zip(STYLE_LAYERS, (256, 64, 16, 4, 1), strict=True)},
            style_loss="wasserstein",
            distance="scaled",
            content_weight=0.015,
            style_weight=1.0,
            tv_weight=2.0,
            lr=0.04,
            final_lr=1.0,
            average=0.99,
            num_steps=1000,
            num_later_steps=500,
            min_px=128,
            start="content",
        ),
        "pytorch-tutorial": StyleConfig(
            content_layers={"conv2_2": 1.0},
            style_layers=dict.fromkeys(("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"), 1.0),
            style_loss="gram",
            distance="squared",
            content_weight=1.0,
            style_weight=1e6,
            tv_weight=0.0,
            optimizer="lbfgs",
            lr=1.0,
            average=0.0,
            num_steps=300,
            min_px=512,
            start="content",
        ),
    }
)
"""Ready settings by name; all but the first are made for VGG19."""

STAND_IN_COLOUR = 1.0  # of the coarse colours, without which stand-ins paint rainbows
STAND_IN_WEIGHTS = {"gram": (1.0, 1.0, 0.3), "wasserstein": (0.3, 10.0, 0.3)}
"""Weights of content, style and variation for maps that stand in for VGG19's, chosen by looking at the pictures."""


def for_look(config: StyleConfig, look: Look) -> StyleConfig:
    """Return settings that suit a look: those made for VGG19 get weights for its stand-ins where it is not there.

    Settings stay as they are where all of their layers are the look's own.
    """
    named = {*config.style_layers, *config.content_layers}
    if not named & set(look.stand_ins):
        return config
    content, style, tv = STAND_IN_WEIGHTS[config.style_loss]
    return replace(
        config,
        content_layers={**config.content_layers, "colour4": STAND_IN_COLOUR},
        distance="relative",
        start="recoloured",
        min_px=min(config.min_px, STAND_IN_PX),
        content_weight=content,
        style_weight=style,
        tv_weight=tv,
    )
