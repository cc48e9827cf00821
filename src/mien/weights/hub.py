"""Weights on the Hugging Face Hub: `hf://owner/name[/file][@revision]`, safetensors only.

Reading keeps the files in the cache folder of everything else; writing puts a model card beside them, which says from
the file's own recipe what the weights are and on which terms.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien.errors import InputError, MissingExtraError, UnsafeWeightsError, WeightsError
from mien.weights.checkpoint import Recipe
from mien.weights.download import default_cache, is_offline

__all__ = ["SCHEME", "HubAddress", "model_card", "parse", "pull_from_hub", "push_to_hub"]

SCHEME = "hf://"
SUFFIX = ".safetensors"
PART = r"[A-Za-z0-9][\w.-]*"
ADDRESS = re.compile(rf"{SCHEME}(?P<owner>{PART})/(?P<name>{PART})(?:/(?P<file>[^@]+))?(?:@(?P<revision>[\w./-]+))?")
KNOWN_LICENCES = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "CC0-1.0": "cc0-1.0",
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
}
"""Our names of licences and the Hub's; every other is `other` there, with our words."""


@dataclass(frozen=True)
class HubAddress:
    """A repository of the Hub, a file in it (None: its only one), a branch, tag or commit (None: the newest)."""

    repo: str
    file: str | None = None
    revision: str | None = None


def _is_plain(path: str | None) -> bool:
    """Say that a path leads nowhere but down."""
    return path is None or not {"", ".", ".."} & set(path.split("/"))


def parse(address: str) -> HubAddress:
    """Read an address.

    >>> parse("hf://anna/faces/small.safetensors@v2")
    HubAddress(repo='anna/faces', file='small.safetensors', revision='v2')

    Raises:
        InputError: it is none.
        UnsafeWeightsError: it names a file of another kind.
    """
    found = ADDRESS.fullmatch(address)
    if found is None or not all(map(_is_plain, found.group("file", "revision"))):
        raise InputError(f"{address!r} is no address of the Hub", hint=f"write for example {SCHEME}owner/name")
    if found["file"] and not found["file"].endswith(SUFFIX):
        hint = f"download it yourself and convert it: mien models convert FILE OUT{SUFFIX}"
        raise UnsafeWeightsError(f"{found['file']} is no {SUFFIX} file; nothing else is taken from the Hub", hint=hint)
    return HubAddress(f"{found['owner']}/{found['name']}", found["file"], found["revision"])


def _library() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as err:
        raise MissingExtraError("the Hugging Face Hub needs a library", hint="pip install 'mien[hub]'") from err


@contextmanager
def _errors(address: str) -> Iterator[None]:
    """Say in one line what the library's many exceptions mean."""
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        yield
    except errors.GatedRepoError as err:
        hint = "sign it in a browser, then: hf auth login"
        raise WeightsError(f"{address} asks for an agreement first", hint=hint) from err
    except errors.RepositoryNotFoundError as err:
        hint = "check the spelling; for a private one: hf auth login"
        raise WeightsError(f"{address}: there is no such repository", hint=hint) from err
    except errors.LocalEntryNotFoundError as err:
        hint = "unset MIEN_OFFLINE and check the connection"
        raise WeightsError(f"{address} is not in the cache, and cannot be fetched now", hint=hint) from err
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError) as err:
        raise WeightsError(f"{address}: no such file or revision", hint="look at its page on the Hub") from err
    except (OSError, ValueError, errors.HfHubHTTPError) as err:
        reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        hint = "check the connection, and your rights there: hf auth whoami"
        raise WeightsError(f"{address}: {reason}"[:300], hint=hint) from err


def _only_file(names: list[str], address: str) -> str:
    found = sorted(name for name in names if name.endswith(SUFFIX))
    if not found:
        raise WeightsError(f"{address} has no {SUFFIX} file", hint="nothing else is taken from the Hub")
    if len(found) > 1:
        hint = f"say which: {', '.join(found[:5])}"
        raise WeightsError(f"{address} has {len(found)} files of weights", hint=hint)
    return found[0]


def _local_names(hub: Any, place: HubAddress, folder: Path) -> list[str]:
    snapshot = hub.snapshot_download(place.repo, revision=place.revision, cache_dir=folder, local_files_only=True)
    return [path.relative_to(snapshot).as_posix() for path in Path(snapshot).rglob(f"*{SUFFIX}")]


def pull_from_hub(address: str, *, cache: Path | None = None, offline: bool | None = None) -> Path:
    """Return the file of an address, downloaded first where the cache does not have it.

    Args:
        address: `hf://owner/name[/file][@revision]`; without a file the repository must hold one only.
        cache: folder; by default `default_cache()`.
        offline: never download; by default as `MIEN_OFFLINE` says.

    Raises:
        InputError: no such form of address.
        UnsafeWeightsError: the file is not safetensors.
        WeightsError: it is not there, or cannot be fetched.
        MissingExtraError: the extra `hub` is not installed.
    """
    place, hub = parse(address), _library()
    folder = (cache or default_cache()) / "hub"
    is_local = is_offline() if offline is None else offline
    with _errors(address):
        file = place.file
        if file is None:
            names = (
                _local_names(hub, place, folder)
                if is_local
                else hub.HfApi().list_repo_files(place.repo, revision=place.revision)
            )
            file = _only_file(names, address)
        return Path(
            hub.hf_hub_download(place.repo, file, revision=place.revision, cache_dir=folder, local_files_only=is_local)
        )


def model_card(recipe: Recipe, *, file: str, licence: str) -> str:
    """Write what the weights are and on which terms, as the Hub's README.md.

    Args:
        recipe: of the file.
        file: its name in the repository.
        licence: the terms in words.
    """
    key = KNOWN_LICENCES.get(licence, "other")
    front = ["---", "library_name: mien", f"license: {key}"]
    if key == "other":
        front.append(f"license_name: {json.dumps(licence)}")
    front += ["tags:", "- stylegan", "- faces", "---"]
    facts = json.dumps(dict(recipe.provenance), indent=1, ensure_ascii=False)
    arguments = json.dumps(dict(recipe.kwargs), indent=1)
    title = Path(file).stem
    return "\n".join(
        [
            *front,
            "",
            f"# {title}",
            "",
            f"`{recipe.net}` of mien, as tensors and a recipe; the file holds no code.",
            "",
            f"**Licence:** {licence}.",
            "",
            "## Recipe",
            "",
            f"```json\n{arguments}\n```",
            "",
            "## Provenance",
            "",
            f"```json\n{facts}\n```",
            "",
        ]
    )


def push_to_hub(path: Path, recipe: Recipe, address: str, *, licence: str, private: bool = True) -> str:
    """Put a file of ours and its model card into a repository of the Hub, made where it is missing.

    Args:
        path: a .safetensors file that mien wrote.
        recipe: what `read_recipe` says of it.
        address: `hf://owner/name[/file]`; by default the file keeps its name.
        licence: on which terms others may use it.
        private: whether a new repository is for its owner only.

    Returns:
        The address of the commit.

    Raises:
        InputError: no such form of address, no licence, or not a file of weights.
        WeightsError: the Hub refuses it.
        MissingExtraError: the extra `hub` is not installed.
    """
    place, hub = parse(address), _library()
    if not licence.strip():
        raise InputError("weights without a licence help nobody", hint="say on which terms others may use them")
    if path.suffix != SUFFIX or not path.is_file():
        raise InputError(f"{path} is no {SUFFIX} file", hint=f"convert it first: mien models convert FILE OUT{SUFFIX}")
    file = place.file or path.name
    card = model_card(recipe, file=file, licence=licence)
    with _errors(address):
        api = hub.HfApi()
        api.create_repo(place.repo, private=private, exist_ok=True)
        commit = api.create_commit(
            place.repo,
            [
                hub.CommitOperationAdd(path_in_repo=file, path_or_fileobj=path),
                hub.CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=card.encode()),
            ],
            commit_message=f"Add {file}",
            revision=place.revision,
        )
    return str(commit.commit_url)
