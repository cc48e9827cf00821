"""Judges: who answers under which name, that all answer alike, and that each says who it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mien.errors import InputError, MissingExtraError, WeightsError
from mien.inversion.objective import Target, TermWeights, picture_terms
from mien.judges import FaceJudge, features_judge, identity_judge, perceptual_judge
from mien.losses import identity_distance, perceptual
from mien.nets.arcface import face_window
from mien.nets.features import FaceNet
from mien.nets.lpips import LPIPS
from mien.weights.load import load_net
from mien.weights.recogniser import OnnxRecogniser


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(0)
    small = torch.rand(2, 2, 3, 8, 8, generator=gen) * 2 - 1
    return tuple(torch.nn.functional.interpolate(x, (64, 64), mode="bilinear") for x in small)  # type: ignore[return-value]


def test_ours_answer_where_nothing_is_cached(cache: Path) -> None:
    img, target = pictures()
    net = load_net("face-features", FaceNet)
    looks, who, what = perceptual_judge(), identity_judge(), features_judge()
    for judge in (looks, who, what):
        assert judge.record == {"judge": "shipped", "weights": dict(judge.weights)}
        assert list(judge.weights) == ["face-features.safetensors"]
    torch.testing.assert_close(looks(img, target), perceptual(net.maps(img), net.maps(target)))
    torch.testing.assert_close(who(img, target), 1 - identity_distance(net(img).identity, net(target).identity))
    torch.testing.assert_close(what(img), net.describe(img))
    assert looks(img, img).tolist() == [0, 0]
    torch.testing.assert_close(who(img, img), torch.ones(2))


@pytest.fixture
def alex(cache: Path, monkeypatch: pytest.MonkeyPatch) -> LPIPS:
    """Random weights of LPIPS in the cache, under hashes that fit them."""
    import hashlib
    from dataclasses import replace

    from mien.weights import zoo as module

    torch.manual_seed(0)
    net = LPIPS(trunk="alexnet").eval()
    state = net.state_dict()
    torch.save({k.removeprefix("net."): t for k, t in state.items() if k.startswith("net.")}, cache / "alexnet.pth")
    torch.save({k: t for k, t in state.items() if k.startswith("lin")}, cache / "lpips-alex.pth")
    entries = dict(module.zoo())
    for name in ("alexnet", "lpips-alex"):
        digest = hashlib.sha256((cache / f"{name}.pth").read_bytes()).hexdigest()
        entries[name] = replace(entries[name], sha256=digest, size_bytes=None)
    monkeypatch.setattr(module, "zoo", lambda: entries)
    return net


def test_published_ones_answer_where_they_are_cached(alex: LPIPS) -> None:
    judge = perceptual_judge()
    assert judge.name == "lpips-alex"
    assert sorted(judge.weights) == ["alexnet.pth", "lpips-alex.pth"]
    img, target = pictures()
    torch.testing.assert_close(judge(img, target), alex(img, target))
    maps = judge.maps(target)
    torch.testing.assert_close(judge.distance(judge.maps(img), maps), judge(img, target))
    assert perceptual_judge("shipped").name == "shipped"


def test_a_damaged_cache_falls_back_to_ours(alex: LPIPS, cache: Path) -> None:
    (cache / "alexnet.pth").write_bytes(b"damaged")
    assert perceptual_judge().name == "shipped"


def test_a_name_wants_its_weights(cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"vgg16\.pth is not in the cache, and downloads are off"):
        perceptual_judge("lpips-vgg")
    for make in (perceptual_judge, identity_judge, features_judge):
        with pytest.raises(InputError, match="no judge named 'me'") as info:
            make("me")
        assert "shipped" in info.value.hint


def test_a_face_judge_stands_where_the_face_network_stands(alex: LPIPS) -> None:
    judge = FaceJudge(perceptual_judge(), identity_judge())
    assert judge.record["looks"]["judge"] == "lpips-alex"
    assert judge.record["identity"]["judge"] == "shipped"
    img, target = pictures()
    img.requires_grad_()
    terms = picture_terms(img, Target.of(target, judge), TermWeights(pixel=0, ssim=0), judge)
    torch.testing.assert_close(terms["perceptual"], alex(img, target))
    torch.testing.assert_close(terms["identity"], 1 - identity_judge()(img, target))
    (terms["perceptual"] + terms["identity"]).sum().backward()
    assert img.grad is not None and img.grad.abs().sum() > 0 and img.grad.isfinite().all()


def test_a_face_judge_looks_at_256_px(alex: LPIPS) -> None:
    judge = FaceJudge(perceptual_judge(), identity_judge())
    small = torch.nn.functional.interpolate(pictures()[0], (256, 256), mode="bilinear")
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(judge(large).identity, judge(small).identity)
    torch.testing.assert_close(judge(large).maps[0], judge(small).maps[0])


# ---- A recogniser of somebody else


def field(number: int, value: bytes | str | int) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    data = value.encode() if isinstance(value, str) else value
    assert len(data) < 1 << 14
    length = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return bytes([number << 3 | 2]) + length + data


def tensor_info(name: str, shape: list[int]) -> bytes:
    dims = b"".join(field(1, field(1, size) if size > 0 else field(2, "n")) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def write_onnx(path: Path, batch: int = 1, side: int = 112) -> Path:
    """Write a network that gives the mean colours."""
    nodes = field(1, "img") + field(2, "mean") + field(4, "GlobalAveragePool")
    flatten = field(1, "mean") + field(2, "vector") + field(4, "Flatten")
    graph = field(1, nodes) + field(1, flatten) + field(2, "g")
    graph += field(11, tensor_info("img", [batch, 3, side, side])) + field(12, tensor_info("vector", [batch, 3]))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13)))
    return path


@pytest.mark.parametrize("batch", [1, 0])
def test_a_recogniser_is_plugged_in(batch: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = write_onnx(tmp_path / "mine.onnx", batch)
    judge = identity_judge(f"onnx:{path}")
    assert judge.name == "onnx:mine.onnx"
    assert list(judge.weights) == ["mine.onnx"]
    img = pictures()[0]
    expected = torch.nn.functional.normalize(face_window(img).mean((2, 3)), dim=1)
    torch.testing.assert_close(judge.describe(img), expected)
    torch.testing.assert_close(judge(img, img), torch.ones(2))


def test_recognisers_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(WeightsError, match="no recogniser at"):
        identity_judge("onnx:nowhere.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsError, match=r"bad\.onnx: no network that ONNX Runtime can read"):
        identity_judge(f"onnx:{tmp_path / 'bad.onnx'}")
    with pytest.raises(WeightsError, match=r"large\.onnx takes \[1, 3, 96, 96\]"):
        OnnxRecogniser(write_onnx(tmp_path / "large.onnx", side=96))
    with pytest.raises(InputError, match=r"must be \[N, 3, 112, 112\]"):
        OnnxRecogniser(write_onnx(tmp_path / "mine.onnx"))(torch.zeros(1, 3, 64, 64))
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError) as info:
        OnnxRecogniser(tmp_path / "mine.onnx")
    assert "mien[recognisers]" in info.value.hint
