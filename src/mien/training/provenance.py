"""What the header of a network says of its making: settings, data, and a digest of everything that it was made from."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from mien import __version__
from mien.training.data import source_digest
from mien.weights.delta import tensors_digest
from mien.weights.load import load_net

__all__ = ["commit", "made_from", "net_digest", "provenance"]


@cache
def commit() -> str:
    """Return the commit of the code that runs, with -dirty where files differ from it; else mien's version."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return f"mien {__version__}"


def net_digest(net: nn.Module) -> str:
    """Return a sha256 of what a network computes with, 64 hex digits: the names, shapes and values of its tensors.

    Unlike the hash of its file it does not change with what the file's header says.
    """
    return tensors_digest(net.state_dict())


def made_from(paths: Iterable[Path]) -> dict[str, str]:
    """Return the digests of networks (`net_digest`) and of data with the tables beside them (sha256) by file name."""
    digests = {}
    for path in paths:
        if path.suffix == ".safetensors":
            digests[path.name] = net_digest(load_net(path))
            continue
        table = path.with_suffix(".csv")
        digests |= {file.name: source_digest(file) for file in (path, table) if file.exists()}
    return digests


def provenance(config: Any, sources: Iterable[Path], **facts: Any) -> dict[str, Any]:
    """Return what a header is to say: `made_from`, the settings `config` (a dataclass), and further facts."""
    return {"made_from": made_from(sources), "config": json.loads(json.dumps(asdict(config))), **facts}
