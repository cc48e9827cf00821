"""StyleGAN3: a generator whose details move with the picture, with the parameter names of the official PyTorch code.

Feature maps are samples of continuous signals: every layer knows its sampling rate and what frequencies it may hold,
and each leaky ReLU is filtered (`mien.nets.filtered_lrelu`). Configuration T is the default; R, which also follows
rotations, has `conv_kernel=1, use_radial_filters=True` and twice the channels. There is no noise.

Networks compute in float32 unless a call asks for another `dtype`; then feature maps are of that type, while styles,
Fourier features, demodulation and the picture itself stay float32.

Source: Karras et al. 2021, arXiv:2106.12423.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.nets.filtered_lrelu import filtered_lrelu
from mien.nets.halves import TwoHalves
from mien.nets.layers import FullyConnectedLayer, as_blocks, full_precision, weights_dtype
from mien.nets.lowpass import design_lowpass
from mien.nets.ops import modulated_conv2d, normalize_2nd_moment
from mien.nets.stylegan2 import MappingNetwork, WeightCache

__all__ = ["Band", "Generator", "SynthesisNetwork", "plan_bands", "user_transform"]


def user_transform(translation: Sequence[float] = (0.0, 0.0), rotation_deg: float = 0.0) -> Tensor:
    """Return the `transform` [3, 3] that turns a picture, then moves it.

    Args:
        translation: to the right and down, in widths of the picture.
        rotation_deg: counter-clockwise, around the middle.
    """
    angle = math.radians(rotation_deg)
    c, s = math.cos(angle), math.sin(angle)
    placed = torch.tensor([[c, s, translation[0]], [-s, c, translation[1]], [0, 0, 1]], dtype=torch.float64)
    return torch.linalg.inv(placed).float()  # where each place of the result comes from


# ---- What each layer may hold ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Band:
    """The signal after a layer; frequencies are in periods per picture."""

    cutoff: float  # where the low-pass filter has half its amplitude
    half_width: float  # of its transition band
    sampling_rate: int  # samples per picture
    size: int  # samples per side, the margin around the picture included
    channels: int


def plan_bands(
    img_resolution: int,
    img_channels: int,
    *,
    channel_base: int = 32768,
    channel_max: int = 512,
    num_layers: int = 14,
    num_critical: int = 2,
    first_cutoff: float = 2.0,
    first_stopband: float = 2**2.1,
    last_stopband_rel: float = 2**0.3,
    margin_size: int = 10,
) -> list[Band]:
    """Lay out the layers: cut-off and stop band grow by equal factors up to the critically sampled last layers.

    Returns:
        One band for each of `num_layers` and one for the colours.

    Source: Karras et al. 2021, Sec. 3.2 and App. C.
    """
    if not 0 <= num_critical < num_layers:
        raise ValueError(f"num_critical must be from 0 to below num_layers = {num_layers}, got {num_critical}")
    last_cutoff = img_resolution / 2
    bands = []
    for i in range(num_layers + 1):
        t = min(i / (num_layers - num_critical), 1.0)
        cutoff = first_cutoff * (last_cutoff / first_cutoff) ** t
        stopband = first_stopband * (last_cutoff * last_stopband_rel / first_stopband) ** t
        rate = 2 ** math.ceil(math.log2(min(stopband * 2, img_resolution)))
        is_at_the_end = i >= num_layers - 1
        bands.append(
            Band(
                cutoff=cutoff,
                half_width=max(stopband, rate / 2) - cutoff,
                sampling_rate=rate,
                size=img_resolution if is_at_the_end else rate + margin_size * 2,
                channels=img_channels if i == num_layers else round(min(channel_base / 2 / cutoff, channel_max)),
            )
        )
    return bands


# ---- Layers ---------------------------------------------------------------------------------------------------------


class SynthesisInput(nn.Module):
    """Fourier features, turned and moved by the first w and by the user."""

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, w_dim: int, band: Band) -> None:
        super().__init__()
        self.band = band
        freqs = torch.randn(band.channels, 2)
        radii = freqs.square().sum(dim=1, keepdim=True).sqrt()
        freqs = freqs / (radii * radii.square().exp().pow(0.25))  # inside the circle, evenly
        self.weight = nn.Parameter(torch.randn(band.channels, band.channels))
        self.affine = FullyConnectedLayer(w_dim, 4)  # cosine, sine, shift to the right, shift down
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias[0] = 1
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs * band.cutoff)
        self.register_buffer("phases", torch.rand(band.channels) - 0.5)

    def _placement(self, w: Tensor, transform: Tensor) -> Tensor:
        """What w does, after the user's transform: [N, 3, 3]."""
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cosine, sine, x, y = t.unbind(dim=1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        turn = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], dim=1).unflatten(1, (3, 3))
        move = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1).unflatten(1, (3, 3))
        return turn @ move @ transform

    def forward(self, w: Tensor, transform: Tensor | None = None) -> Tensor:
        """Carry w [N, w_dim] to [N, channels, size, size]; `transform` [3, 3] or [N, 3, 3] instead of the buffer."""
        band = self.band
        transform = self.transform if transform is None else transform.to(self.transform)
        placement = self._placement(w, transform)
        freqs = self.freqs @ placement[:, :2, :2]  # [NC2]
        phases = self.phases + (self.freqs @ placement[:, :2, 2:]).squeeze(2)  # [NC]
        too_high = (freqs.norm(dim=2) - band.cutoff) / (band.sampling_rate / 2 - band.cutoff)
        amplitudes = (1 - too_high).clamp(0, 1)  # frequencies that the transform lifted above what the grid can hold

        half = 0.5 * band.size / band.sampling_rate  # of the side, in pictures
        theta = torch.eye(2, 3, dtype=freqs.dtype, device=freqs.device) * half
        grid = F.affine_grid(theta[None], [1, 1, band.size, band.size], align_corners=False).flatten(1, 2)  # [1,HW,2]
        waves = (2 * math.pi * (grid @ freqs.mT + phases[:, None])).sin() * amplitudes[:, None]  # [N,HW,C]
        x = waves @ (self.weight.T / math.sqrt(band.channels))
        return x.unflatten(1, (band.size, band.size)).permute(0, 3, 1, 2)


class SynthesisLayer(nn.Module):
    """Modulated convolution, bias, filtered leaky ReLU; the last layer makes the colours and filters nothing."""

    up_filter: Tensor | None
    down_filter: Tensor | None
    magnitude_ema: Tensor

    def __init__(
        self,
        w_dim: int,
        before: Band,
        after: Band,
        *,
        is_torgb: bool,
        is_critical: bool,
        conv_kernel: int = 3,
        filter_size: int = 6,
        lrelu_upsampling: int = 2,
        use_radial_filters: bool = False,
        conv_clamp: float | None = 256.0,
        magnitude_ema_beta: float = 0.999,
    ) -> None:
        super().__init__()
        self.is_torgb, self.conv_clamp, self.magnitude_ema_beta = is_torgb, conv_clamp, magnitude_ema_beta
        self.kernel = 1 if is_torgb else conv_kernel
        self.affine = FullyConnectedLayer(w_dim, before.channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, self.kernel, self.kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        self.cache = WeightCache(is_transposed=False)

        rate = max(before.sampling_rate, after.sampling_rate) * (1 if is_torgb else lrelu_upsampling)
        self.up, self.down = rate // before.sampling_rate, rate // after.sampling_rate
        up_taps, down_taps = (1 if is_torgb or f == 1 else filter_size * f for f in (self.up, self.down))
        is_radial = use_radial_filters and not is_critical
        up_filter = design_lowpass(up_taps, cutoff=before.cutoff, width=before.half_width * 2, fs=rate)
        down_filter = design_lowpass(
            down_taps, cutoff=after.cutoff, width=after.half_width * 2, fs=rate, radial=is_radial
        )
        self.register_buffer("up_filter", up_filter)
        self.register_buffer("down_filter", down_filter)

        wanted = (after.size - 1) * self.down + 1  # of the enlarged picture before the second filter
        total = wanted - (before.size + self.kernel - 1) * self.up + up_taps + down_taps - 2
        low = (total + self.up) // 2  # so that the middle of the picture stays in the middle
        self.padding = (low, total - low, low, total - low)

    def forward(self, x: Tensor, w: Tensor, update_emas: bool = False) -> Tensor:
        """Carry x [N, in, size, size] to the next band in the style w [N, w_dim]."""
        if update_emas:
            magnitude = x.detach().to(self.magnitude_ema.dtype).square().mean()
            self.magnitude_ema.copy_(magnitude.lerp(self.magnitude_ema, self.magnitude_ema_beta))
        weight, energy = self.cache(self.weight, x.dtype)
        styles = self.affine(w)
        fan_in = self.weight[0].numel()
        if self.is_torgb:
            styles = styles * (self.magnitude_ema.rsqrt() / math.sqrt(fan_in))
        else:
            styles = normalize_2nd_moment(styles) / math.sqrt(fan_in)  # demodulated: only half types see this scale
        x = modulated_conv2d(
            x,
            weight,
            styles,
            noise=self.bias[:, None, None],
            padding=self.kernel - 1,
            demodulate=not self.is_torgb,
            energy=energy * self.magnitude_ema,  # the gain of the input is one more factor of the demodulation
        )
        if self.is_torgb:
            return x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)
        return filtered_lrelu(
            x, self.up_filter, self.down_filter, up=self.up, down=self.down, padding=self.padding, clamp=self.conv_clamp
        )


# ---- Networks -------------------------------------------------------------------------------------------------------


class SynthesisNetwork(nn.Module):
    """ws to pictures: Fourier features, then layers `L<i>_<size>_<channels>`.

    Args:
        w_dim: size of a w.
        img_resolution: side of the picture, 16 or more; any number, not powers of two alone.
        img_channels: 3 for RGB.
        channel_base: channels times cut-off, doubled.
        channel_max: most channels of a layer.
        num_layers: layers without the last one, which makes the colours.
        num_critical: layers at the end whose cut-off is the Nyquist frequency.
        first_cutoff: cut-off of the first layer, in periods per picture.
        first_stopband: frequency from which the first layer's filter lets nothing through.
        last_stopband_rel: stop band of the last layer over its cut-off.
        margin_size: samples around the picture, so that its borders are like its middle.
        output_scale: factor of the picture.
        num_fp16_res: kept for the record; `dtype` says in which type a call computes.
        layer_kwargs: of `SynthesisLayer`.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_layers: int = 14,
        num_critical: int = 2,
        first_cutoff: float = 2.0,
        first_stopband: float = 2**2.1,
        last_stopband_rel: float = 2**0.3,
        margin_size: int = 10,
        output_scale: float = 0.25,
        num_fp16_res: int = 4,
        **layer_kwargs: Any,
    ) -> None:
        super().__init__()
        if img_resolution < 16:
            raise ValueError(f"img_resolution must be at least 16, got {img_resolution}")
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.num_ws = num_layers + 2
        self.output_scale, self.num_fp16_res = output_scale, num_fp16_res
        bands = plan_bands(
            img_resolution,
            img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            num_layers=num_layers,
            num_critical=num_critical,
            first_cutoff=first_cutoff,
            first_stopband=first_stopband,
            last_stopband_rel=last_stopband_rel,
            margin_size=margin_size,
        )
        self.bands = bands
        self.input = SynthesisInput(w_dim, bands[0])
        self.layer_names = [f"L{i}_{band.size}_{band.channels}" for i, band in enumerate(bands)]
        for i, (name, after) in enumerate(zip(self.layer_names, bands, strict=True)):
            layer = SynthesisLayer(
                w_dim,
                bands[max(i - 1, 0)],
                after,
                is_torgb=i == num_layers,
                is_critical=i >= num_layers - num_critical,
                **layer_kwargs,
            )
            setattr(self, name, layer)

    def layers(self) -> list[SynthesisLayer]:
        """The layers after the input, in order."""
        return [getattr(self, name) for name in self.layer_names]

    def noise_shapes(self) -> list[tuple[int, int]]:
        """No layer takes noise."""
        return []

    def noise_maps(self) -> list[Tensor]:
        """No layer takes noise."""
        return []

    def forward(
        self,
        ws: Tensor,
        noise_mode: str = "none",
        noise: Sequence[Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
        transform: Tensor | None = None,
        update_emas: bool = False,
    ) -> Tensor:
        """Render ws.

        Args:
            ws: [N, num_ws, w_dim].
            noise_mode: `const`, `random` or `none`, as the other families have it; all mean the same here.
            noise: nothing.
            dtype: of the feature maps; float32 is exact, bfloat16 fast where the hardware has it.
            transform: [3, 3] or [N, 3, 3], as `user_transform` makes it; by default the network's own.
            update_emas: move the running magnitudes of the feature maps, as training does.

        Returns:
            float32 [N, img_channels, img_resolution, img_resolution], about [-1, 1].
        """
        if noise_mode not in ("const", "random", "none"):
            raise ValueError(f"noise_mode must be const, random or none, got {noise_mode!r}")
        if noise:
            raise ValueError(f"StyleGAN3 takes no noise, got {len(noise)} maps")
        assert ws.ndim == 3 and ws.shape[1:] == (self.num_ws, self.w_dim), (ws.shape, self.num_ws, self.w_dim)
        first, *rest = ws.to(weights_dtype(self)).unbind(dim=1)
        x = as_blocks(self.input(first, transform), dtype)
        for layer, w in zip(self.layers(), rest, strict=True):
            x = layer(x, w, update_emas)
        return full_precision(x) * self.output_scale


class Generator(TwoHalves):
    """StyleGAN3's generator, of sides from 16 px up. Arguments as of `TwoHalves`."""

    MAPPING, SYNTHESIS = MappingNetwork, SynthesisNetwork
    MAPPING_DEFAULTS: ClassVar[Mapping[str, Any]] = {"num_layers": 2, "w_avg_beta": 0.998}
    mapping: MappingNetwork
    synthesis: SynthesisNetwork
