"""Small files of weights in several formats, made on the spot."""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mien.nets.stylegan2 import Generator
from mien.weights.load import save_net


def _reconstruct_persistent_obj(meta: Any) -> None:
    raise AssertionError("a reader must not call this")


class Persistent:
    """Pickles as NVIDIA's persistent modules do: class, source text, attributes."""

    def __init__(self, net: nn.Module, **attributes: Any) -> None:
        below = {name: Persistent(module) for name, module in net._modules.items() if module is not None}
        tensors = {"_parameters": dict(net._parameters), "_buffers": dict(net._buffers), "_modules": below}
        source = 'raise RuntimeError("embedded source must never be executed")'
        self.meta = dict(type="class", version=6, module_src=source, class_name=type(net).__name__)
        self.meta["state"] = {**tensors, **attributes}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _reconstruct_persistent_obj, (self.meta,)


def nvidia_pickle(net: nn.Module, kwargs: dict[str, Any], protocol: int) -> bytes:
    """Write a network as stylegan2-ada-pytorch does."""
    module = types.ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    names = {"torch_utils": types.ModuleType("torch_utils"), module.__name__: module}
    sys.modules.update(names)
    try:
        G = Persistent(net, _init_args=(), _init_kwargs=kwargs)
        return pickle.dumps({"G": None, "D": None, "G_ema": G, "augment_pipe": None}, protocol)
    finally:
        for name in names:
            del sys.modules[name]


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One small generator of StyleGAN2 as a file of each kind, by the file's name."""
    torch.manual_seed(0)
    sizes = dict(z_dim=4, c_dim=0, w_dim=4, img_resolution=8, img_channels=3)
    net = Generator(**sizes, mapping_kwargs={"num_layers": 1}, channel_base=16, channel_max=4).requires_grad_(False)
    ours = tmp_path_factory.mktemp("tiny") / "ours.safetensors"
    save_net(net, ours)
    files = {"ours.safetensors": ours.read_bytes()}
    for name, is_zip in (("zip.pt", True), ("chain.pth", False)):
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer, _use_new_zipfile_serialization=is_zip)
        files[name] = buffer.getvalue()
    for protocol in (2, 4):
        files[f"nvidia{protocol}.pkl"] = nvidia_pickle(net, sizes, protocol)
    return files


@pytest.fixture
def tiny_paths(tiny_files: dict[str, bytes], tmp_path: Path) -> dict[str, Path]:
    """The same, written to a folder."""
    for name, content in tiny_files.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in tiny_files}
