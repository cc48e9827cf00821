"""Sinks that keep what long work reports: several at once, and TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image

from mien.errors import MissingExtraError
from mien.report import Sink, Step

__all__ = ["tee", "tensorboard"]


def tee(*sinks: Sink) -> Sink:
    """Return a sink that tells every one of `sinks`, in order."""

    def tell(step: Step) -> None:
        for sink in sinks:
            sink(step)

    return tell


@contextmanager
def tensorboard(folder: Path) -> Iterator[Sink]:
    """Yield a sink that writes numbers and pictures as TensorBoard's event files into `folder`.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as err:
        raise MissingExtraError("TensorBoard is not installed", hint="pip install 'mien[track]'") from err
    with SummaryWriter(str(folder)) as writer:

        def write(step: Step) -> None:
            for name, value in step.scalars.items():
                writer.add_scalar(f"{step.stage}/{name}", value, step.done)
            for name, path in step.pictures.items():
                with PIL.Image.open(path) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
                writer.add_image(f"{step.stage}/{name}", pixels, step.done, dataformats="HWC")

        yield write
