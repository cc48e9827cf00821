"""Training of the encoder on a tiny generator: it learns, goes on exactly, and frees its rows in order."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mien.errors import Cancelled, InputError
from mien.latents import sample_ws, synthesize
from mien.nets.encoder import Encoder
from mien.nets.stylegan2 import Generator
from mien.report import Step
from mien.training.data import PictureSet
from mien.training.encoder import EncoderConfig, jittered, learning_rate, num_free_rows, train_encoder

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = EncoderConfig(
    num_steps=6, batch_size=4, hidden=16, precision="fp32", save_steps=3, warmup_steps=1, use_compile=False
)


@pytest.fixture(scope="module")
def data(G: Generator) -> PictureSet:
    img = synthesize(G, sample_ws(G, range(24)))
    pixels = (img / img.abs().max() * 127.5 + 127.5).to(torch.uint8)
    return PictureSet(pixels, [str(i) for i in range(24)], {}, "digest")


def test_it_learns_to_render_the_pictures(G: Generator, data: PictureSet, tmp_path: Path) -> None:
    steps: list[Step] = []
    found = train_encoder(replace(QUICK, num_steps=24, lr=4e-3), G, data, tmp_path, steps.append)
    first, last = (sum(s.scalars["latent"] for s in some) / 5 for some in (steps[:5], steps[-5:]))
    assert last < 0.9 * first
    assert steps[-1].done == steps[-1].total == 24
    assert not any(parameter.requires_grad for parameter in found.parameters())  # no graph grows along the average
    options = json.loads((tmp_path / "options.json").read_text())
    assert (options["data"], options["pictures"], options["num_steps"]) == ("digest", 24, 24)


def test_a_killed_run_goes_on_to_the_same_weights(G: Generator, data: PictureSet, tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        if step.done == 4:
            raise Cancelled("killed")

    whole = train_encoder(QUICK, G, data, tmp_path / "whole")
    with pytest.raises(Cancelled):
        train_encoder(QUICK, G, data, tmp_path / "cut", stop)
    again = train_encoder(QUICK, G, data, tmp_path / "cut")
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_it_may_start_from_an_encoder(G: Generator, data: PictureSet, tmp_path: Path) -> None:
    start = Encoder(16, G.num_ws, 8, hidden=16)
    found = train_encoder(replace(QUICK, num_steps=1, lr=1e-9), G, data, tmp_path, start=start)
    torch.testing.assert_close(found.stem.weight, start.stem.weight)
    with pytest.raises(InputError, match="has other sizes"):
        train_encoder(QUICK, G, data, tmp_path / "other", start=Encoder(16, G.num_ws, 8, hidden=8))


def test_the_generator_is_left_alone(G: Generator, data: PictureSet, tmp_path: Path) -> None:
    before = {name: t.clone() for name, t in G.state_dict().items()}
    train_encoder(QUICK, G, data, tmp_path)
    assert all(torch.equal(t, before[name]) for name, t in G.state_dict().items())


def test_a_folder_of_another_run_is_refused(G: Generator, data: PictureSet, tmp_path: Path) -> None:
    train_encoder(QUICK, G, data, tmp_path)
    longer = train_encoder(replace(QUICK, num_steps=7), G, data, tmp_path)  # a run may be made longer
    assert isinstance(longer, Encoder)
    with pytest.raises(InputError, match="holds a run with other settings: latent_weight, lr"):
        train_encoder(replace(QUICK, lr=1e-4, latent_weight=0.1), G, data, tmp_path)
    with pytest.raises(InputError, match="on other data"):
        train_encoder(QUICK, G, replace(data, digest="other"), tmp_path)
    other = copy.deepcopy(G)
    other.synthesis.b4.const.data += 1
    with pytest.raises(InputError, match="for another generator") as caught:
        train_encoder(QUICK, other, data, tmp_path)
    assert "use another folder" in caught.value.hint


def test_rows_are_freed_one_after_another() -> None:
    assert num_free_rows(EncoderConfig(free_from=0.3, free_until=0.3, num_steps=10), 2, 6) == 0
    config = EncoderConfig(num_steps=100, free_from=0.1, free_until=0.5)
    rows = [num_free_rows(config, step, 6) for step in range(100)]
    assert rows[:10] == [0] * 10
    assert rows[50:] == [6] * 50
    assert sorted(set(rows)) == list(range(7))
    assert rows == sorted(rows)


def test_learning_rate_warms_up_and_ends_at_nothing() -> None:
    config = EncoderConfig(num_steps=1000, lr=1.0, warmup_steps=10)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 500) == pytest.approx(0.5)
    assert learning_rate(config, 999) < 1e-4


def test_wrong_settings_and_pictures_are_refused(G: Generator, data: PictureSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="precision must be"):
        EncoderConfig(precision="fp8")
    for name, value in [("num_steps", 0), ("warmup_steps", 0), ("save_steps", -1), ("batch_size", 1), ("ema_steps", 0)]:
        with pytest.raises(InputError, match=f"{name} must be"):
            EncoderConfig(**{name: value})
    for shares in (dict(free_from=0.5, free_until=0.4), dict(free_from=0.5, free_until=1.5)):
        with pytest.raises(InputError, match="free_until must be"):
            EncoderConfig(**shares)
    small = PictureSet(data.pixels[:, :, :8, :8], data.names, {}, "")
    with pytest.raises(InputError, match="the generator's are 16 px"):
        train_encoder(QUICK, G, small, tmp_path)


def test_every_look_learns(G: Generator, data: PictureSet, tmp_path: Path) -> None:
    found = train_encoder(replace(QUICK, num_looks=3), G, data, tmp_path)
    assert found.num_looks == 3
    assert not torch.equal(found.step_size, torch.full_like(found.step_size, 0.4))


def test_the_face_network_sees_both_pictures_moved_alike() -> None:
    seen: list[torch.Tensor] = []
    img = torch.rand(3, 3, 16, 16)
    moved = jittered(lambda x: seen.append(x), 3, 0.1, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert moved is not None
    moved(img), moved(img)
    assert torch.equal(seen[0], seen[1]) and not torch.allclose(seen[0], img)
    assert not torch.allclose(seen[0][0] - img[0], seen[0][1] - img[1])
    still = jittered(lambda x: seen.append(x), 3, 1e-9, torch.Generator())  # type: ignore[arg-type]
    assert still is not None
    still(img)
    torch.testing.assert_close(seen[-1], img, atol=1e-5, rtol=0)
