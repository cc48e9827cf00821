"""Two processes train as one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mien.training.ranks import average_, own_device, rank, share, world_size

SCRIPT = """
import sys, torch, torch.distributed as dist
from pathlib import Path
sys.path.insert(0, {here!r})
from test_gan import TINY, pictures
from mien.training.gan import train_gan
from mien.training.gan_step import GanConfig
torch.set_num_threads(1)
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo", init_method="file://" + str(folder / "meeting"), rank=rank, world_size=2)
G = train_gan(GanConfig(kimg=0.012, **TINY), pictures(), folder / "run")
torch.save(G.state_dict(), folder / f"{{rank}}.pt")
dist.destroy_process_group()
"""


def test_one_process_is_the_whole_world() -> None:
    batch = torch.arange(4.0)
    assert (rank(), world_size()) == (0, 1)
    assert torch.equal(share(batch), batch)
    average_([batch])
    assert torch.equal(batch, torch.arange(4.0))
    assert own_device("cpu") == torch.device("cpu")


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(tmp_path: Path) -> None:
    script = SCRIPT.format(here=str(Path(__file__).parent))
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(i)]) for i in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"{i}.pt", weights_only=True) for i in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(list((tmp_path / "run" / "snapshots").iterdir())) == 2  # G and D, written once
