"""What the generators of StyleGAN 1, 2 and 3 have in common: two halves, and blocks whose layers take noise.

Source: Karras et al. 2019, Fig. 1b, arXiv:1812.04948.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mien.nets.generator import NOISE_MODES
from mien.nets.layers import full_precision, weights_dtype

__all__ = ["NoisyBlocks", "TwoHalves"]


class NoisyBlocks(nn.Module):
    """Blocks named `b<resolution>` from 4x4 up, each with `layers()` that keep a constant noise map."""

    block_resolutions: list[int]
    num_ws: int
    w_dim: int

    def blocks(self) -> list[Any]:
        """The blocks from 4x4 up."""
        return [getattr(self, f"b{res}") for res in self.block_resolutions]

    def noise_shapes(self) -> list[tuple[int, int]]:
        """Height and width of each layer's noise, in order of execution."""
        return [(layer.resolution, layer.resolution) for block in self.blocks() for layer in block.layers()]

    def noise_maps(self) -> list[Tensor]:
        """Copies of the constant noise, each [1, 1, h, w], in order of execution."""
        return [layer.noise_const[None, None].clone() for block in self.blocks() for layer in block.layers()]

    @abstractmethod
    def render(self, ws: Tensor, noise_mode: str, given: Iterator[Tensor], dtype: torch.dtype) -> Tensor:
        """Render ws [N, num_ws, w_dim] of the weights' type; `given` holds maps of noise until there are no more."""

    def forward(
        self,
        ws: Tensor,
        noise_mode: str = "random",
        noise: Sequence[Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Render ws.

        Args:
            ws: [N, num_ws, w_dim].
            noise_mode: `const` (the network's own pictures), `random` or `none`.
            noise: one map [N or 1, 1, h, w] per layer as `noise_shapes` lists them; takes the place of `const`.
            dtype: of the feature maps; float32 is exact, bfloat16 fast where the hardware has it.

        Returns:
            float32 [N, img_channels, img_resolution, img_resolution], about [-1, 1].
        """
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode must be const, random or none, got {noise_mode!r}")
        assert ws.ndim == 3 and ws.shape[1:] == (self.num_ws, self.w_dim), (ws.shape, self.num_ws, self.w_dim)
        return full_precision(self.render(ws.to(weights_dtype(self)), noise_mode, iter(noise or ()), dtype))


class TwoHalves(nn.Module):
    """A generator made of `mapping` and `synthesis`; a family names the classes of both.

    Args:
        z_dim: size of the input latent.
        c_dim: number of classes, 0 for none.
        w_dim: size of the intermediate latent.
        img_resolution: side of the picture.
        img_channels: 3 for RGB.
        mapping_kwargs: of the mapping network.
        synthesis_kwargs: of the synthesis network and its layers; may also be given flat, as newer files have them.
    """

    MAPPING: ClassVar[type[nn.Module]]
    SYNTHESIS: ClassVar[type[nn.Module]]
    MAPPING_DEFAULTS: ClassVar[Mapping[str, Any]] = {}

    mapping: Any
    synthesis: Any

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: Mapping[str, Any] | None = None,
        synthesis_kwargs: Mapping[str, Any] | None = None,
        **flat_synthesis_kwargs: Any,
    ) -> None:
        super().__init__()
        mapping_kwargs = dict(mapping_kwargs or {})
        synthesis_kwargs = {**(synthesis_kwargs or {}), **flat_synthesis_kwargs}
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.init_kwargs: dict[str, Any] = dict(
            z_dim=z_dim,
            c_dim=c_dim,
            w_dim=w_dim,
            img_resolution=img_resolution,
            img_channels=img_channels,
            mapping_kwargs=mapping_kwargs,
            synthesis_kwargs=synthesis_kwargs,
        )
        self.synthesis = self.SYNTHESIS(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws: int = self.synthesis.num_ws
        self.mapping = self.MAPPING(z_dim, c_dim, w_dim, self.num_ws, **{**self.MAPPING_DEFAULTS, **mapping_kwargs})

    @property
    def w_avg(self) -> Tensor:
        """Mean of w over random z, [w_dim]."""
        w_avg: Tensor = self.mapping.w_avg
        return w_avg

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        **synthesis_kwargs: Any,
    ) -> Tensor:
        """Render z [N, z_dim] (and labels c [N, c_dim]) as img [N, img_channels, H, W]."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        img: Tensor = self.synthesis(ws, **synthesis_kwargs)
        return img
