"""Files of published networks: random weights of the real names and shapes find their way, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mien.errors import UnsafeWeightsError, WeightsError
from mien.nets.arcface import ArcFace
from mien.nets.inception import Inception
from mien.nets.vgg import VGG, AlexNet
from mien.weights.formats import read_checkpoint
from mien.weights.published import load_judge, load_lpips, matches, read


def random_state(kind: type[nn.Module], **kwargs: object) -> dict[str, torch.Tensor]:
    """Values for every name of a network, without its slow beginnings."""
    with torch.device("meta"):
        state = kind(**kwargs).state_dict()
    gen = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(t.shape, generator=gen) * 0.1 + 0.01
        if t.is_floating_point()
        else torch.zeros_like(t, device="cpu")
        for name, t in state.items()
    }


def full_alexnet() -> dict[str, torch.Tensor]:
    """With a stand-in for the full layers that torchvision's file has and nobody needs."""
    return random_state(AlexNet) | {"classifier.1.weight": torch.zeros(8, 4), "classifier.1.bias": torch.zeros(8)}


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg16-397923af.pth"
    state = random_state(VGG, depth=16) | {
        "classifier.0.weight": torch.zeros(8, 4),
        "classifier.0.bias": torch.zeros(8),
    }
    torch.save(state, path, _use_new_zipfile_serialization=False)  # as torchvision's of 2016 is
    return path


def test_a_vgg_is_read_without_its_full_layers(vgg_file: Path) -> None:
    net = load_judge(vgg_file, VGG)
    assert isinstance(net, VGG)
    assert net.init_kwargs == {"depth": 16, "with_classifier": False, "pooling": "max"}
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    torch.testing.assert_close(net.features[28].weight, random_state(VGG, depth=16)["features.28.weight"])


def test_every_published_file_is_told_by_its_names() -> None:
    with torch.device("meta"):
        states = {
            ("torchvision", "vgg.VGG"): VGG(depth=19, with_classifier=True).state_dict(),
            ("torchvision", "vgg.AlexNet"): AlexNet().state_dict(),
            ("InsightFace_Pytorch", "arcface.ArcFace"): ArcFace().state_dict(),
            ("pytorch-fid", "inception.Inception"): Inception().state_dict(),
        }
    for (format_name, net), state in states.items():
        assert matches(state)
        checkpoint = read(state)
        assert (checkpoint.format, checkpoint.networks["net"].recipe.net) == (format_name, net)
    assert read(states["torchvision", "vgg.VGG"]).networks["net"].recipe.kwargs == {
        "depth": 19,
        "with_classifier": True,
    }


def test_what_is_something_else_is_not_claimed() -> None:
    for tree in (
        {"features.0.weight": "text"},
        {"conv1.weight": torch.zeros(1)},
        [torch.zeros(1)],
        {1: torch.zeros(1)},
    ):
        assert not matches(tree)


def test_a_file_of_before_the_counters_is_completed(tmp_path: Path) -> None:
    state = random_state(Inception)
    torch.save({k: t for k, t in state.items() if not k.endswith("num_batches_tracked")}, tmp_path / "inception.pth")
    net = load_judge(tmp_path / "inception.pth", Inception)
    torch.testing.assert_close(net.state_dict(), state)


def test_a_file_is_recognised_among_all_formats(tmp_path: Path) -> None:
    torch.save(full_alexnet(), tmp_path / "alexnet.pth")
    assert read_checkpoint(tmp_path / "alexnet.pth").format == "torchvision"


def test_lpips_is_put_together(vgg_file: Path, tmp_path: Path) -> None:
    heads = {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate((64, 192, 384, 256, 256))}
    torch.save(heads, tmp_path / "alex.pth")
    torch.save(full_alexnet(), tmp_path / "alexnet.pth")
    net = load_lpips("alexnet", tmp_path / "alexnet.pth", tmp_path / "alex.pth")
    torch.testing.assert_close(net.state_dict()["lin3.model.1.weight"], heads["lin3.model.1.weight"])
    img = torch.rand(2, 2, 3, 48, 48) * 2 - 1
    assert (net(*img) > 0).all()
    with pytest.raises(WeightsError, match=r"alex.pth: lin1.model.1.weight is \[1, 192, 1, 1\]"):
        load_lpips("vgg16", vgg_file, tmp_path / "alex.pth")
    with pytest.raises(WeightsError, match="holds a AlexNet, not a VGG"):
        load_lpips("vgg16", tmp_path / "alexnet.pth", tmp_path / "alex.pth")


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    state = full_alexnet()
    for name, change, message in (
        ("nan", {"features.3.bias": torch.full((192,), torch.nan)}, "not finite"),
        ("shape", {"features.3.bias": torch.zeros(191)}, r"features.3.bias is \[191\]"),
        ("more", {"features.99.bias": torch.zeros(1)}, "do not belong"),
    ):
        torch.save(state | change, tmp_path / f"{name}.pth")
        with pytest.raises(WeightsError, match=message):
            load_judge(tmp_path / f"{name}.pth", AlexNet)
    torch.save({"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}, tmp_path / "heads.pth")
    with pytest.raises(WeightsError, match="the heads of LPIPS, which are no network"):
        read_checkpoint(tmp_path / "heads.pth")
    torch.save({"something": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="none of the networks that judge"):
        load_judge(tmp_path / "other.pth", AlexNet)
    torch.save({f"features.{i}.weight": torch.zeros(4, 3, 3, 3) for i in range(0, 8, 2)}, tmp_path / "small.pth")
    with pytest.raises(WeightsError, match="a VGG of 4 convolutions"):
        load_judge(tmp_path / "small.pth", VGG)


class Run:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of a file was run')",)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11), "x": Run()}, tmp_path / "bad.pth")
    with pytest.raises(UnsafeWeightsError, match="exec"):
        load_judge(tmp_path / "bad.pth", AlexNet)
