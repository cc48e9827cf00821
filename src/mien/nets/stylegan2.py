"""StyleGAN2's generator: mapping and synthesis, with the parameter names of the official PyTorch code.

Networks compute in float32 unless a call asks for another `dtype`; then the feature maps of blocks are of that type,
while styles, demodulation and the picture itself stay float32.

Source: Karras et al. 2019, arXiv:1812.04948; Karras et al. 2020, arXiv:1912.04958; ADA: arXiv:2006.06676.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mien.nets.halves import NoisyBlocks, TwoHalves
from mien.nets.layers import (
    FIR,
    Conv2dLayer,
    FullyConnectedLayer,
    as_blocks,
    channels_at,
    check_architecture,
    full_precision,
    resolutions_to,
    weights_dtype,
)
from mien.nets.ops import (
    ACTIVATIONS,
    bias_act,
    modulated_conv2d,
    normalize_2nd_moment,
    setup_filter,
    upsample2d,
    weight_energy,
)

__all__ = ["Generator", "MappingNetwork", "SynthesisNetwork", "WeightCache"]


class WeightCache:
    """A weight as the convolution wants it and its energy, made anew only when it has changed.

    Compiled code cannot ask whether it has; it takes what `pin` has checked just before the call, or makes its own.
    """

    def __init__(self, *, is_transposed: bool) -> None:
        self.is_transposed = is_transposed  # for a transposed convolution, which reads [I, O, kh, kw]
        self._held: dict[torch.dtype, tuple[tuple[Any, ...], Tensor, Tensor]] = {}
        self._pinned: tuple[Tensor, Tensor] | None = None

    def __call__(self, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return `weight` [O, I, kh, kw] as `dtype`, and its energy [O, I]."""
        if weight.requires_grad and torch.is_grad_enabled():
            return weight.to(dtype), weight_energy(weight)
        if not torch.compiler.is_compiling():
            return self._checked(weight, dtype)
        if self._pinned is not None and not weight.requires_grad and self._pinned[0].dtype == dtype:
            return self._pinned
        return weight.to(dtype), weight_energy(weight)

    def _checked(self, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        key = (weight.device, weight.data_ptr(), weight._version, torch.is_inference_mode_enabled())
        held = self._held.get(dtype)  # read once: other threads may replace it
        if held is None or held[0] != key:
            held = self._held[dtype] = (key, self._packed(weight, dtype), weight_energy(weight))
        return held[1], held[2]

    def _packed(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Cast, and lay out so that the convolution need not do it at every call."""
        if self.is_transposed:
            return as_blocks(weight.transpose(0, 1), dtype).transpose(0, 1)
        return as_blocks(weight, dtype)

    def pin(self, weight: Tensor, dtype: torch.dtype) -> None:
        """Check the weight for a compiled call that follows at once."""
        self._pinned = None if weight.requires_grad else self._checked(weight, dtype)


class MappingNetwork(nn.Module):
    """z (and labels) to w: a multilayer perceptron on the unit sphere, with the running mean of w for truncation."""

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        *,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.995,
        concat_labels: bool = False,  # embed labels as z is, and normalise both as one, as the TensorFlow code does
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.w_avg_beta, self.concat_labels = num_layers, w_avg_beta, concat_labels
        embed_features = z_dim if concat_labels else w_dim if embed_features is None else embed_features
        embed = 0 if c_dim == 0 else embed_features
        hidden = w_dim if layer_features is None else layer_features
        features = [z_dim + embed] + [hidden] * (num_layers - 1) + [w_dim]
        if c_dim > 0:
            self.embed = nn.Linear(c_dim, embed, bias=False) if concat_labels else FullyConnectedLayer(c_dim, embed)
        for i, (n_in, n_out) in enumerate(pairwise(features[: num_layers + 1])):
            layer = FullyConnectedLayer(n_in, n_out, activation=activation, lr_multiplier=lr_multiplier)
            setattr(self, f"fc{i}", layer)
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
    ) -> Tensor:
        """Map latents to one w per row of the synthesis network.

        Args:
            z: [N, z_dim]; None where z_dim is 0.
            c: [N, c_dim]; needed where c_dim is above 0.
            truncation_psi: 1 keeps w, 0 gives the mean (the truncation trick).
            truncation_cutoff: number of rows that are truncated; None for all.
            update_emas: move the running mean of w, as training does.

        Returns:
            ws [N, num_ws, w_dim], or w [N, w_dim] for a mapping without rows.
        """
        parts = []
        if self.z_dim > 0:
            assert z is not None and z.shape[1] == self.z_dim
            parts.append(z.to(weights_dtype(self)))
        if self.c_dim > 0:
            assert c is not None and c.shape[1] == self.c_dim
            parts.append(self.embed(c.to(weights_dtype(self))))
        parts = [torch.cat(parts, dim=1)] if self.concat_labels else parts
        x = torch.cat([normalize_2nd_moment(part) for part in parts], dim=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        if update_emas and self.w_avg_beta is not None:
            self.w_avg.copy_(x.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
        if self.num_ws is None:
            return x
        ws = x[:, None].expand(-1, self.num_ws, -1)  # [N,num_ws,w_dim]
        if truncation_psi == 1:
            return ws
        rows = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([self.w_avg.lerp(ws[:, :rows], truncation_psi), ws[:, rows:]], dim=1)


class SynthesisLayer(nn.Module):
    """Modulated convolution, noise, bias, activation."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        kernel_size: int = 3,
        up: int = 1,
        use_noise: bool = True,
        activation: str = "lrelu",
        resample_filter: Sequence[float] = FIR,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.use_noise = resolution, up, use_noise
        self.activation, self.conv_clamp = activation, conv_clamp
        self.padding = kernel_size // 2
        self.act_gain = ACTIVATIONS[activation].gain
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", setup_filter(resample_filter))
        self.cache = WeightCache(is_transposed=up > 1)

    def noise(self, num: int, noise_mode: str, given: Tensor | None) -> Tensor | None:
        """Return the scaled noise [N or 1, 1, resolution, resolution], or None."""
        if not self.use_noise or noise_mode == "none":
            return None
        if given is not None:
            picture = given
        elif noise_mode == "random":
            shape = [num, 1, self.resolution, self.resolution]
            picture = torch.randn(shape, device=self.noise_const.device)
        else:
            picture = self.noise_const[None, None]
        return picture * self.noise_strength

    def forward(
        self, x: Tensor, w: Tensor, noise_mode: str = "random", noise: Tensor | None = None, gain: float = 1.0
    ) -> Tensor:
        """Carry x [N, in, h, w] to [N, out, resolution, resolution] in the style w [N, w_dim]."""
        weight, energy = self.cache(self.weight, x.dtype)
        gain *= self.act_gain
        before, after = (gain, 1.0) if ACTIVATIONS[self.activation].is_homogeneous else (1.0, gain)
        x = modulated_conv2d(
            x,
            weight,
            self.affine(w),
            energy=energy,
            noise=self.noise(x.shape[0], noise_mode, noise),
            up=self.up,
            padding=self.padding,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,
            gain=before,
        )
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain / self.act_gain
        return bias_act(x, self.bias * before, act=self.activation, gain=after, clamp=clamp)


class ToRGBLayer(nn.Module):
    """Feature maps to colours by a modulated 1x1 convolution, without demodulation."""

    def __init__(self, in_channels: int, out_channels: int, *, w_dim: int, conv_clamp: float | None = None) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Carry x [N, in, H, W] to [N, out, H, W] in the style w [N, w_dim].

        So few colours are cheaper by a weight per sample than by scaling all feature maps.
        """
        styles = self.affine(w) * self.weight_gain
        weight = self.weight.flatten(1) * styles[:, None]  # [NOI]
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # [N,HW,I], a view of channels-last maps
        y = (pixels @ weight.to(x.dtype).mT).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return bias_act(y, self.bias, clamp=self.conv_clamp)


class SynthesisBlock(nn.Module):
    """All layers at one resolution."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        architecture: str = "skip",
        resample_filter: Sequence[float] = FIR,
        conv_clamp: float | None = None,
        use_noise: bool = True,
        activation: str = "lrelu",
    ) -> None:
        super().__init__()
        check_architecture(architecture)
        self.in_channels, self.resolution, self.architecture = in_channels, resolution, architecture
        self.register_buffer("resample_filter", setup_filter(resample_filter))
        layer: dict[str, Any] = dict(
            w_dim=w_dim,
            resolution=resolution,
            conv_clamp=conv_clamp,
            use_noise=use_noise,
            activation=activation,
        )
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, resample_filter=resample_filter, **layer)
        self.conv1 = SynthesisLayer(out_channels, out_channels, **layer)
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = int(is_last or architecture == "skip")
        if self.num_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, w_dim=w_dim, conv_clamp=conv_clamp)
        if in_channels != 0 and architecture == "resnet":
            self.skip = Conv2dLayer(
                in_channels, out_channels, kernel_size=1, bias=False, up=2, resample_filter=resample_filter
            )

    def layers(self) -> list[SynthesisLayer]:
        """The layers that take noise, in order."""
        return [self.conv1] if self.in_channels == 0 else [self.conv0, self.conv1]

    def forward(
        self,
        x: Tensor | None,
        img: Tensor | None,
        ws: Tensor,
        *,
        noise_mode: str,
        noise: Sequence[Tensor | None],
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        """Take feature maps and picture of the block before; ws [N, num_conv + num_torgb, w_dim], noise per layer."""
        w = ws.unbind(dim=1)
        resnet = self.architecture == "resnet" and self.in_channels != 0
        gain = math.sqrt(0.5) if resnet else 1.0
        if self.in_channels == 0:
            x = as_blocks(self.const[None].expand(ws.shape[0], -1, -1, -1), dtype)
            x = self.conv1(x, w[0], noise_mode, noise[0])
        else:
            assert x is not None
            x = as_blocks(x, dtype)
            y = self.skip(x, gain=gain) if resnet else None
            x = self.conv0(x, w[0], noise_mode, noise[0])
            x = self.conv1(x, w[1], noise_mode, noise[1], gain=gain)
            x = x if y is None else x + y
        if img is not None:
            img = upsample2d(img, self.resample_filter)
        if self.num_torgb:
            y = full_precision(self.torgb(x, w[self.num_conv]))
            img = y if img is None else img + y
        assert x is not None
        return x, img


class SynthesisNetwork(NoisyBlocks):
    """ws to pictures, block by block from 4x4."""

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int | Sequence[int] = 512,
        num_fp16_res: int = 0,
        **block_kwargs: Any,
    ) -> None:
        super().__init__()
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.num_fp16_res = num_fp16_res
        self.block_resolutions = resolutions_to(img_resolution)
        self.num_ws = 0
        in_channels = 0
        for res in self.block_resolutions:
            out_channels = channels_at(res, channel_base, channel_max)
            is_last = res == img_resolution
            block = SynthesisBlock(
                in_channels,
                out_channels,
                w_dim=w_dim,
                resolution=res,
                img_channels=img_channels,
                is_last=is_last,
                **block_kwargs,
            )
            self.num_ws += block.num_conv + (block.num_torgb if is_last else 0)
            setattr(self, f"b{res}", block)
            in_channels = out_channels

    def render(self, ws: Tensor, noise_mode: str, given: Iterator[Tensor], dtype: torch.dtype) -> Tensor:
        """Render ws: a row for each convolution; the row of colours is the next block's first one, too."""
        x = img = None
        row = 0
        for block in self.blocks():
            rows = ws[:, row : row + block.num_conv + block.num_torgb]
            maps = [next(given, None) for _ in range(block.num_conv)]
            x, img = block(x, img, rows, noise_mode=noise_mode, noise=maps, dtype=dtype)
            row += block.num_conv
        assert img is not None
        return img


class Generator(TwoHalves):
    """StyleGAN2's generator. Arguments as of `TwoHalves`."""

    MAPPING, SYNTHESIS = MappingNetwork, SynthesisNetwork
    mapping: MappingNetwork
    synthesis: SynthesisNetwork
