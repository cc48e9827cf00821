"""Separable resampling around a pointwise function, tile by tile, so that the enlarged picture never leaves the cache.

Along an axis, resampling by a FIR filter is a product with a banded matrix: of [out, in] numbers only a band is not
zero. A tile of the enlarged picture therefore comes from a small block of the input by two small dense products, and
gives its part of the output by two more; matrix products are what processors do best. (In bfloat16 such small ones are
no faster, so half types are filtered in float32.) A filter that is not separable is a sum of a few that are, by its
singular value decomposition.

Source: polyphase filters as matrices: Vaidyanathan 1993, Ch. 5; the operation: Karras et al. 2021, arXiv:2106.12423.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

__all__ = ["Resampling", "resampling", "stream"]

TILE_BYTES = 704 << 10  # of the enlarged picture for each thread: a tile and its neighbours fit the cache of a core
TILE_COLUMNS = 32  # more would waste products on zeros, fewer would leave them too small
MIN_ROWS, MAX_ROWS = 4, 32  # of a tile, the most for each thread
SLAB_ROWS = 64  # that are enlarged along H at once

Taps = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Resampling:
    """A linear map of pictures, sum over k of rows[k] @ X @ columns[k].T: [H_in, W_in] to [H_out, W_out].

    Attributes:
        rows: [rank, H_out, H_in].
        columns: [rank, W_out, W_in].
    """

    rows: Tensor
    columns: Tensor

    @cached_property
    def adjoint(self) -> Resampling:
        """The map that carries gradients back."""
        return Resampling(self.rows.mT, self.columns.mT)


# ---- Filters as matrices --------------------------------------------------------------------------------------------


@lru_cache(maxsize=128)
def _banded(
    kernels: tuple[Taps, ...], num: int, up: int, down: int, before: int, after: int, dtype: torch.dtype
) -> Tensor:
    """Matrices [rank, out, num] of correlating with kernels [rank, taps] between zero-stuffing and dropping samples."""
    taps = len(kernels[0])
    out = (num * up + before + after - taps) // down + 1
    k = torch.arange(num) * up + before - torch.arange(out)[:, None] * down  # the tap that meets a sample
    values = torch.tensor(kernels, dtype=torch.float64)[:, k.clamp(0, taps - 1)]
    return torch.where((k >= 0) & (k < taps), values, 0.0).to(dtype)


def _separated(f: Tensor, precision: float) -> tuple[tuple[Taps, ...], tuple[Taps, ...]]:
    """Write f [taps] or [h, w] as a sum of outer products: kernels of rows [rank, h] and of columns [rank, w]."""
    if f.ndim == 1:
        rows = columns = f[None]
    else:
        u, s, vh = torch.linalg.svd(f)
        rank = int((s > precision * s[0]).sum())
        root = s[:rank, None].sqrt()
        rows, columns = u.T[:rank] * root, vh[:rank] * root
    return tuple(map(tuple, rows.tolist())), tuple(map(tuple, columns.tolist()))


@lru_cache(maxsize=128)
def _resampling(
    f: Taps | tuple[Taps, ...],
    hw: tuple[int, int],
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    dtype: torch.dtype,
) -> Resampling:
    rows, columns = _separated(torch.tensor(f, dtype=torch.float64), torch.finfo(dtype).eps / 2)
    left, right, top, bottom = padding
    dtype = torch.promote_types(dtype, torch.float32)
    return Resampling(
        _banded(rows, hw[0], up, down, top, bottom, dtype), _banded(columns, hw[1], up, down, left, right, dtype)
    )


def resampling(
    f: Tensor | None,
    hw: Sequence[int],
    *,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    flip_filter: bool = False,
    gain: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Resampling:
    """Return what `upfirdn2d` with these arguments does to pictures of `hw` (height, width), as exactly as `dtype` is.

    The matrices of half types are float32; they have fewer terms where the filter is not separable.
    """
    f = torch.ones(1) if f is None else f
    f = f if flip_filter else f.flip(list(range(f.ndim)))
    scaled = f.double() * gain ** (f.ndim / 2)
    taps = tuple(scaled.tolist()) if f.ndim == 1 else tuple(map(tuple, scaled.tolist()))
    return _resampling(taps, (hw[0], hw[1]), up, down, padding, dtype)


# ---- Tiles ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """The part of a banded matrix [rank, out, in] that makes some of its outputs."""

    inputs: slice
    weight: Tensor  # [rank, outputs, inputs]


def _block(matrix: Tensor, outputs: slice) -> _Block:
    """Cut out the dense block of a band: the shortest slice of inputs that `outputs` read."""
    used = (matrix[:, outputs] != 0).any(dim=0).any(dim=0).nonzero()[:, 0]
    inputs = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
    return _Block(inputs, matrix[:, outputs, inputs])


@dataclass(frozen=True)
class _Columns:
    """Columns of the output, by way of the columns of the enlarged picture that they need."""

    sources: tuple[_Block, ...]  # inputs: rows of [W * rank, ...]; weights [columns, inputs]
    outputs: slice  # rows of [W' * rank, ...]
    weight: Tensor  # [outputs, columns]


@dataclass(frozen=True)
class _Slab:
    """Rows of the enlarged picture, and the rows of the output that are finished with them."""

    sources: tuple[_Block, ...]  # weights [rank * rows, inputs]
    outputs: slice
    weight: Tensor  # [outputs, rank * buffered rows]
    num_rows: int
    num_buffered: int  # rows in the buffer, this slab's last
    num_dropped: int  # rows of the buffer that nothing needs after this slab


@dataclass(frozen=True)
class _Plan:
    slabs: tuple[_Slab, ...]
    columns: tuple[_Columns, ...]
    num_rows: int  # of a tile


def _scaled(part: slice, factor: int) -> slice:
    return slice(part.start * factor, part.stop * factor)


def _plan_columns(sources: Sequence[Tensor], sink: Tensor) -> tuple[_Columns, ...]:
    rank, num_out, num_tmp = sink.shape
    step = max(1, TILE_COLUMNS * num_out // num_tmp)
    found = []
    for start in range(0, num_out, step):
        outputs = slice(start, min(start + step, num_out))
        last = _block(sink, outputs)
        blocks = [(_block(matrix, last.inputs), len(matrix)) for matrix in sources]
        first = tuple(_Block(_scaled(b.inputs, k), b.weight.permute(1, 2, 0).flatten(1)) for b, k in blocks)
        found.append(_Columns(first, _scaled(outputs, rank), last.weight.transpose(0, 1).flatten(0, 1)))
    return tuple(found)


def _plan_slabs(sources: Sequence[Tensor], sink: Tensor, step: int) -> tuple[_Slab, ...]:
    """Cut the rows of the enlarged picture into slabs of `step`; rows that later outputs need stay in the buffer."""
    needs = [_block(sink, slice(o, o + 1)).inputs for o in range(sink.shape[1])]
    slabs: list[_Slab] = []
    done, held, start = 0, needs[0].start, needs[0].start
    while done < len(needs):
        stop = min(start + step, sink.shape[2])
        outputs = slice(done, next((o for o in range(done, len(needs)) if needs[o].stop > stop), len(needs)))
        blocks = [_block(matrix, slice(start, stop)) for matrix in sources]
        keeps = stop if outputs.stop == len(needs) else max(held, min(needs[outputs.stop].start, stop))
        slabs.append(
            _Slab(
                sources=tuple(_Block(b.inputs, b.weight.flatten(0, 1)) for b in blocks),
                outputs=outputs,
                weight=sink[:, outputs, held:stop].transpose(0, 1).flatten(1),
                num_rows=stop - start,
                num_buffered=stop - held,
                num_dropped=keeps - held,
            )
        )
        done, held, start = outputs.stop, keeps, stop
    return tuple(slabs)


@lru_cache(maxsize=128)
def _plan(sources: tuple[Resampling, ...], sink: Resampling, num_channels: int, num_threads: int) -> _Plan:
    columns = _plan_columns([source.columns for source in sources], sink.columns)
    widest = max(c.weight.shape[1] for c in columns)
    fitting = TILE_BYTES * num_threads // (widest * num_channels * sink.rows.element_size())
    slabs = _plan_slabs([source.rows for source in sources], sink.rows, SLAB_ROWS)
    return _Plan(slabs, columns, min(max(fitting, MIN_ROWS), MAX_ROWS * num_threads))


# ---- The way through ------------------------------------------------------------------------------------------------


def _by_batch(weight: Tensor, x: Tensor) -> Tensor:
    """One matrix [out, in] times every [in, C] of x [W, in, C]."""
    return torch.bmm(weight.expand(len(x), -1, -1), x)


def _stream_one(
    pictures: Sequence[Tensor], out: Tensor, plan: _Plan, rank: int, between: Callable[..., Tensor]
) -> None:
    """`stream` for one sample: pictures [H, W, C] each, to out [H', W', C].

    On the way a slab lies as [W, rank, rows, C], so that resampling along W is one product for all rows.
    """
    width, channels = out.shape[1:]
    dtype = plan.slabs[0].weight.dtype
    buffer = out.new_zeros(width, rank, max(slab.num_buffered for slab in plan.slabs), channels, dtype=dtype)
    for slab in plan.slabs:
        enlarged = [  # along H only
            _by_batch(block.weight, x[block.inputs].to(dtype).transpose(0, 1)).view(-1, slab.num_rows * channels)
            for block, x in zip(slab.sources, pictures, strict=True)
        ]
        fresh = buffer.flatten(0, 1)[:, slab.num_buffered - slab.num_rows : slab.num_buffered].flatten(1)
        for start in range(0, slab.num_rows, plan.num_rows):
            rows = slice(start * channels, (start + plan.num_rows) * channels)
            for columns in plan.columns:
                tiles = [
                    torch.mm(block.weight, x[block.inputs, rows])
                    for block, x in zip(columns.sources, enlarged, strict=True)
                ]
                torch.mm(columns.weight, between(*tiles), out=fresh[columns.outputs, rows])
        if len(slab.weight):
            held = buffer[:, :, : slab.num_buffered].flatten(1, 2)  # [W', rank * rows, C]
            out[slab.outputs] = _by_batch(slab.weight, held).transpose(0, 1)
        kept = buffer[:, :, slab.num_dropped : slab.num_buffered]
        buffer[:, :, : kept.shape[2]] = kept.clone()


def stream(
    pictures: Sequence[Tensor], sources: Sequence[Resampling], sink: Resampling, between: Callable[..., Tensor]
) -> Tensor:
    """Resample pictures to a common enlarged size, join them by `between`, and resample the result by `sink`.

    Args:
        pictures: each [N, C, H, W]; half types are computed in the type of the resamplings.
        sources: how each is enlarged.
        sink: how the enlarged picture is shrunk.
        between: function of a tile of each enlarged picture, all of one shape, to one such tile; it may change them in
            place.

    Returns:
        [N, C, H', W'] in channels-last order and the type of the pictures; no gradient.
    """
    assert not torch.is_grad_enabled()
    last = [x.permute(0, 2, 3, 1).contiguous() for x in pictures]  # [NHWC], a view of channels-last maps
    num, _, _, channels = last[0].shape
    plan = _plan(tuple(sources), sink, channels, torch.get_num_threads())
    out = last[0].new_empty(num, sink.rows.shape[1], sink.columns.shape[1], channels)
    for i in range(num):
        _stream_one([x[i] for x in last], out[i], plan, len(sink.rows), between)
    return out.permute(0, 3, 1, 2)
