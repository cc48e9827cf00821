"""What every `mien train` command does around its training: options, settings, tracking, a file that says its making.

plan = run.plan("encoder", EncoderConfig, result="encoder")      # --dry-run ends here
with plan.following(data, network) as made:
made.save(train_encoder(plan.config, G, people, run.run_dir, made.tell), steps=plan.config.num_steps)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer

from mien.app.options import Device, PresetPrecision, PresetSeed, Track
from mien.app.terminal.configured import configured
from mien.app.terminal.items import check_out
from mien.app.terminal.screen import Bars
from mien.errors import InputError
from mien.report import Sink, Step

if TYPE_CHECKING:
    from torch import nn

    from mien.training.data import PictureSet

__all__ = ["Made", "Plan", "Run", "Training", "preset_of"]

Config = TypeVar("Config")


def preset_of(presets: Mapping[str, Config], name: str) -> Config:
    """Return the settings of a name.

    Raises:
        InputError: there are none.
    """
    if name not in presets:
        raise InputError(f"no preset named {name!r}", hint=f"known: {', '.join(presets)}")
    return presets[name]


@dataclass(frozen=True)
class Run:
    """Where a training happens, with which settings, and who is told; see `spread`."""

    run_dir: Annotated[
        Path, typer.Option("--run-dir", "--outdir", help="Folder of the run; the same one goes on with it.")
    ]
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, say num_steps=500.", metavar="NAME=X")
    ] = None
    out: Annotated[Path | None, typer.Option("--out", help="Weights to write; default: in the run's folder.")] = None
    device: Device = "auto"
    seed: PresetSeed = None
    track: Track = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the settings and stop.")] = False

    @property
    def cache(self) -> Path:
        """Folder of decoded data, which runs side by side share."""
        return self.run_dir.parent / "cache"

    def people(self, data: Path, size_px: int) -> tuple[PictureSet, PictureSet]:
        """Load faces of `size_px`: those to train on, and the people who are held out."""
        from mien.training.data import load_pictures, split_people

        return split_people(load_pictures(data, size_px=size_px, cache=self.cache))

    def _own(self) -> dict[str, object]:
        """Options that are settings under the same name."""
        return {"seed": self.seed}

    def plan(
        self,
        name: str,
        kind: type[Config],
        *,
        result: str,
        preset: Config | None = None,
        more: Sequence[str] = (),
    ) -> Plan[Config]:
        """Read the settings of the training `name` and where its result goes; with `--dry-run` print them and stop.

        What `--set` says goes over the preset, `more` over that, and options that are settings over all.

        Raises:
            InputError: settings that are unknown or do not fit, or a result that could not be written.
        """
        own = [f"{key}={value}" for key, value in self._own().items() if value is not None]
        config = configured(kind, [*(self.settings or []), *more, *own], preset=preset)
        if self.dry_run:
            typer.echo(json.dumps(asdict(config), indent=1))  # type: ignore[call-overload]
            raise typer.Exit
        path = self.out or self.run_dir / f"{result}.safetensors"
        check_out(path, suffix=".safetensors")
        return Plan(self, name, config, path)


@dataclass(frozen=True)
class Training(Run):
    """A run whose settings have a precision."""

    precision: PresetPrecision = None

    def _own(self) -> dict[str, object]:
        return {**super()._own(), "precision": self.precision}


@dataclass(frozen=True)
class Plan(Generic[Config]):
    """What a run is going to do: its settings, and the weights `path` that it will write."""

    run: Run
    name: str
    config: Config
    path: Path

    @contextmanager
    def following(self, *sources: Path) -> Iterator[Made]:
        """Draw bars and tell the places of `--track` while a training on `sources` goes on; at its end its files."""
        from mien.track import About, follow, tee
        from mien.training.data import source_digest
        from mien.training.provenance import commit
        from mien.training.resume import OPTIONS

        run, facts = self.run, {}
        if run.track:
            digests = {f"data.{path.name}": source_digest(path) for path in sources if path.exists()}
            facts = {"commit": commit(), **digests}
        about = About(self.name, run.run_dir, asdict(self.config), facts)  # type: ignore[call-overload]
        with Bars() as bars, follow(run.track or [], about) as tell:
            yield Made(self, sources, tee(bars, tell))
            results = {"weights": self.path, "card": self.path.with_suffix(".md"), "settings": run.run_dir / OPTIONS}
            tell(Step(self.name, 1, 1, files={kind: path for kind, path in results.items() if path.is_file()}))
        typer.echo(self.path)


@dataclass(frozen=True)
class Made:
    """What a training made of `sources`, and how it tells of its steps."""

    plan: Plan[Any]
    sources: Sequence[Path]
    tell: Sink

    def facts(self, **facts: Any) -> dict[str, Any]:
        """Return what the header of the network is to say."""
        from mien.training.provenance import provenance
        from mien.training.resume import read_options

        options = read_options(self.plan.run.run_dir)
        known = {"data_sha256": options["data"], "pictures": options["pictures"]}
        return provenance(self.plan.config, self.sources, **known, **facts)

    def save(self, net: nn.Module, **facts: Any) -> None:
        """Save the network in half precision with its recipe and these facts."""
        from mien.weights.load import save_net

        save_net(net, self.plan.path, provenance=self.facts(**facts), use_half=True)
