"""StyleGAN: the first style-based generator, whose layers are normalised map by map and then styled.

Parameters are named as in StyleGAN2 where they mean the same; every layer's `noise_strength` is one number per feature
map here. Networks compute in float32 unless a call asks for another `dtype`; then feature maps are of that type, while
styles and the picture itself stay float32.

Source: Karras et al. 2019, arXiv:1812.04948.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.nets import stylegan2
from mien.nets.halves import NoisyBlocks, TwoHalves
from mien.nets.layers import (
    FullyConnectedLayer,
    as_blocks,
    channels_at,
    full_precision,
    resolutions_to,
)
from mien.nets.ops import ACTIVATIONS, filter2d, setup_filter

__all__ = ["Generator", "MappingNetwork", "SynthesisNetwork"]

BLUR, MAX_TAPS = (1, 2, 1), 32
WEIGHT_GAIN = math.sqrt(2)  # of layers with an activation: on the weights alone, biases stay as they are
SLOPE = ACTIVATIONS["lrelu"].alpha


class MappingNetwork(stylegan2.MappingNetwork):
    """z (and labels) to w, as StyleGAN2 has it but for two things.

    A label's embedding joins z before both are normalised together, and activations do not scale biases.
    """

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, num_ws: int, **kwargs: Any) -> None:
        super().__init__(z_dim, c_dim, w_dim, num_ws, concat_labels=True, **kwargs)
        for layer in self.children():
            if isinstance(layer, FullyConnectedLayer):
                layer.bias_gain /= WEIGHT_GAIN  # g f(Wx + b/g) = f(g Wx + b)


def adaptive_instance_norm(x: Tensor, style: Tensor, eps: float) -> Tensor:
    """Bring every feature map of x [N, C, H, W] to mean 0 and variance 1, then to the scale and shift of its style.

    Args:
        x: feature maps.
        style: [N, 2 C], scales (less one) and shifts.
        eps: added to the variance.

    Source: Karras et al. 2019, Eq. 1.
    """
    scale, shift = style[:, :, None, None].chunk(2, dim=1)
    full = full_precision(x)
    centred = full - full.mean(dim=(2, 3), keepdim=True)
    scale = (scale + 1) * (centred.square().mean(dim=(2, 3), keepdim=True) + eps).rsqrt()
    return torch.addcmul(shift, centred, scale).to(x.dtype)


class SynthesisLayer(nn.Module):
    """Convolution (none on the constant), noise, bias, activation, normalisation, style.

    There are two ways to double the resolution, which learn different kernels: nearest neighbours and a convolution, or
    (`is_fused`) a transposed convolution whose kernel [4, 4] is the sum of the weight shifted by one pixel along both
    axes. The first is the second with the mirrored weight, and is run as such.
    """

    noise_const: Tensor
    blur_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        is_up: bool = False,
        is_fused: bool = False,
        blur_filter: Sequence[float] = BLUR,
        norm_eps: float = 1e-8,
    ) -> None:
        super().__init__()
        if not 1 <= len(blur_filter) <= MAX_TAPS:
            raise ValueError(f"blur_filter must have 1 to {MAX_TAPS} taps, got {len(blur_filter)}")
        self.in_channels, self.resolution, self.norm_eps = in_channels, resolution, norm_eps
        self.is_up, self.is_fused = is_up, is_fused
        self.affine = FullyConnectedLayer(w_dim, 2 * out_channels)
        if in_channels > 0:
            self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
            self.weight_gain = WEIGHT_GAIN / math.sqrt(9 * in_channels)
            self._held: tuple[tuple[Any, ...], Tensor] | None = None
        if is_up:
            self.register_buffer("blur_filter", setup_filter(blur_filter), persistent=False)
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.noise_strength = nn.Parameter(torch.zeros(out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def kernel(self) -> Tensor:
        """What the convolution reads: [in, out, 4, 4] of the transposed one where it doubles, else [out, in, 3, 3]."""
        weight = self.weight * self.weight_gain
        if not self.is_up:
            return weight
        padded = F.pad(weight if self.is_fused else weight.flip(2, 3), [1, 1, 1, 1])
        rows = padded[:, :, 1:] + padded[:, :, :-1]
        return (rows[:, :, :, 1:] + rows[:, :, :, :-1]).transpose(0, 1)

    def _kernel(self, dtype: torch.dtype) -> Tensor:
        """The kernel as `dtype`, laid out for the convolution; kept until the weight changes, if nobody learns it."""
        weight = self.weight
        if (weight.requires_grad and torch.is_grad_enabled()) or torch.compiler.is_compiling():
            return as_blocks(self.kernel(), dtype)
        key = (dtype, weight.device, weight.data_ptr(), weight._version, torch.is_inference_mode_enabled())
        held = self._held  # read once: other threads may replace it
        if held is None or held[0] != key:
            held = self._held = (key, as_blocks(self.kernel(), dtype))
        return held[1]

    def convolve(self, x: Tensor) -> Tensor:
        """Carry x [N, in, h, w] to [N, out, resolution, resolution]; the constant stays as it is."""
        if self.in_channels == 0:
            return x
        if self.is_up:
            x = F.conv_transpose2d(x, self._kernel(x.dtype), stride=2, padding=1)
            return filter2d(x, self.blur_filter)
        return F.conv2d(x, self._kernel(x.dtype), padding=1)

    def offset(self, num: int, noise_mode: str, given: Tensor | None) -> Tensor:
        """What is added to the feature maps: noise in each map's strength, and biases; broadcasts to them."""
        bias, strength = self.bias[:, None, None], self.noise_strength[:, None, None]
        if noise_mode == "none":
            return bias
        if given is not None:
            picture = given
        elif noise_mode == "random":
            picture = torch.randn([num, 1, self.resolution, self.resolution], device=self.noise_const.device)
        else:
            picture = self.noise_const[None, None]
        return torch.addcmul(bias, as_blocks(picture, picture.dtype), strength)

    def forward(self, x: Tensor, w: Tensor, noise_mode: str = "random", noise: Tensor | None = None) -> Tensor:
        """Carry x [N, in, h, w] to [N, out, resolution, resolution] in the style w [N, w_dim]."""
        x = self.convolve(x) + self.offset(x.shape[0], noise_mode, noise).to(x.dtype)
        return adaptive_instance_norm(F.leaky_relu(x, SLOPE), self.affine(w), self.norm_eps)


class SynthesisBlock(nn.Module):
    """Both layers at one resolution; the first one doubles it, or styles the learned constant."""

    def __init__(
        self, in_channels: int, out_channels: int, *, resolution: int, is_fused: bool, **layer_kwargs: Any
    ) -> None:
        super().__init__()
        self.in_channels, self.resolution = in_channels, resolution
        layer = dict(resolution=resolution, **layer_kwargs)
        if in_channels == 0:
            self.const = nn.Parameter(torch.ones(out_channels, resolution, resolution))
        is_up = in_channels > 0
        self.layer0 = SynthesisLayer(in_channels, out_channels, is_up=is_up, is_fused=is_fused, **layer)
        self.layer1 = SynthesisLayer(out_channels, out_channels, **layer)

    def layers(self) -> list[SynthesisLayer]:
        """The layers that take noise, in order."""
        return [self.layer0, self.layer1]

    def forward(
        self,
        x: Tensor | None,
        ws: Tensor,
        *,
        noise_mode: str,
        noise: Sequence[Tensor | None],
        dtype: torch.dtype,
    ) -> Tensor:
        """Take the feature maps of the block before; ws [N, 2, w_dim], noise per layer."""
        if self.in_channels == 0:
            x = as_blocks(self.const[None].expand(ws.shape[0], -1, -1, -1), dtype)
        assert x is not None
        for layer, w, picture in zip(self.layers(), ws.unbind(dim=1), noise, strict=True):
            x = layer(x, w, noise_mode, picture)
        return x


class ToRGBLayer(nn.Module):
    """Feature maps to colours by a 1x1 convolution; no style."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Carry x [N, in, H, W] to [N, out, H, W]."""
        return F.conv2d(x, (self.weight * self.weight_gain).to(x.dtype), self.bias.to(x.dtype))


class SynthesisNetwork(NoisyBlocks):
    """ws to pictures, block by block from 4x4.

    Args:
        w_dim: size of the intermediate latent.
        img_resolution: side of the picture, a power of two.
        img_channels: 3 for RGB.
        channel_base: feature maps of a block are channel_base / resolution,
        channel_max: but not more than this.
        fused_from: resolution from which layers double it by a transposed convolution.
        layer_kwargs: of `SynthesisLayer`.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        *,
        channel_base: int = 16384,
        channel_max: int = 512,
        fused_from: int = 128,
        **layer_kwargs: Any,
    ) -> None:
        super().__init__()
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.block_resolutions = resolutions_to(img_resolution)
        self.num_ws = 2 * len(self.block_resolutions)
        in_channels = 0
        for res in self.block_resolutions:
            out_channels = channels_at(res, channel_base, channel_max)
            is_fused = res >= fused_from
            block = SynthesisBlock(
                in_channels, out_channels, w_dim=w_dim, resolution=res, is_fused=is_fused, **layer_kwargs
            )
            setattr(self, f"b{res}", block)
            in_channels = out_channels
        self.torgb = ToRGBLayer(in_channels, img_channels)

    def render(self, ws: Tensor, noise_mode: str, given: Iterator[Tensor], dtype: torch.dtype) -> Tensor:
        """Render ws: two rows to a block, colours at the end."""
        x: Tensor | None = None
        for block, rows in zip(self.blocks(), ws.split(2, dim=1), strict=True):
            maps = [next(given, None) for _ in range(2)]
            x = block(x, rows, noise_mode=noise_mode, noise=maps, dtype=dtype)
        assert x is not None
        img: Tensor = self.torgb(x)
        return img


class Generator(TwoHalves):
    """StyleGAN's generator; the paper truncates with psi 0.7, only the first 8 rows. Arguments as of `TwoHalves`."""

    MAPPING, SYNTHESIS = MappingNetwork, SynthesisNetwork
    mapping: MappingNetwork
    synthesis: SynthesisNetwork
