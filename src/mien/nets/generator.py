"""What every generator keeps, whichever its family: two halves, `mapping` and `synthesis`, and its own sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NOISE_MODES", "Generator"]

NOISE_MODES = ("const", "random", "none")
"""What synthesis does about noise: the network's own pictures, new ones, or none at all."""


@runtime_checkable
class Generator(Protocol):
    """A network from latent codes to pictures; whatever builds on it asks these attributes and never assumes them."""

    z_dim: int
    c_dim: int
    w_dim: int
    num_ws: int
    img_resolution: int
    img_channels: int
    init_kwargs: dict[str, Any]

    @property
    def w_avg(self) -> Tensor:
        """Mean of w over random z, [w_dim]."""
        ...

    def mapping(self, z: Tensor, c: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Carry z [N, z_dim] (and labels c [N, c_dim]) to ws [N, num_ws, w_dim]."""
        ...

    def synthesis(self, ws: Tensor, **kwargs: Any) -> Tensor:
        """Render ws [N, num_ws, w_dim] as img [N, img_channels, img_resolution, img_resolution], about [-1, 1]."""
        ...
