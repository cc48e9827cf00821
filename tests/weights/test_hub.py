"""The Hub: addresses, what may come from there, what goes there; the library answers as the real one does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from mien.errors import InputError, MissingExtraError, UnsafeWeightsError, WeightsError
from mien.nets.stylegan2 import Generator
from mien.weights.hub import HubAddress, model_card, parse, pull_from_hub, push_to_hub
from mien.weights.load import find_weights, load_generator, read_recipe, save_generator


def make(path: Path) -> Path:
    torch.manual_seed(0)
    kwargs = dict(channel_base=64, channel_max=4)
    G = Generator(4, 0, 4, 8, 3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=kwargs)
    save_generator(G, path, provenance={"licence": "CC0-1.0", "kimg": 3})
    return path


@dataclass
class Hub:
    """What is on the Hub, and what was asked of it."""

    files: dict[str, Path] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    error: Exception | None = None


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """A library in place of huggingface_hub, with its names and its errors."""
    state = Hub()
    errors = ModuleType("huggingface_hub.errors")
    library = ModuleType("huggingface_hub")
    family = {
        "HfHubHTTPError": (OSError,),
        "RepositoryNotFoundError": ("HfHubHTTPError",),
        "GatedRepoError": ("RepositoryNotFoundError",),
        "RevisionNotFoundError": ("HfHubHTTPError",),
        "EntryNotFoundError": (Exception,),
        "LocalEntryNotFoundError": ("EntryNotFoundError", FileNotFoundError),
    }
    for name, bases in family.items():
        setattr(errors, name, type(name, tuple(getattr(errors, b) if isinstance(b, str) else b for b in bases), {}))

    def answer(what: str, *args: Any, **kwargs: Any) -> None:
        state.calls.append((what, (args, kwargs)))
        if state.error is not None:
            raise state.error

    def hf_hub_download(repo: str, file: str, **kwargs: Any) -> str:
        answer("download", repo, file, **kwargs)
        if file not in state.files:
            raise errors.EntryNotFoundError("404")
        return str(state.files[file])

    class HfApi:
        def list_repo_files(self, repo: str, revision: str | None = None) -> list[str]:
            answer("list", repo, revision)
            return ["README.md", *state.files]

        def create_repo(self, repo: str, **kwargs: Any) -> None:
            answer("create", repo, **kwargs)

        def create_commit(self, repo: str, operations: list[Any], **kwargs: Any) -> Any:
            answer("commit", repo, operations, **kwargs)
            return SimpleNamespace(commit_url=f"https://huggingface.co/{repo}/commit/1")

    library.hf_hub_download = hf_hub_download  # type: ignore[attr-defined]
    library.HfApi = HfApi  # type: ignore[attr-defined]
    library.CommitOperationAdd = SimpleNamespace  # type: ignore[attr-defined]
    library.errors = errors  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MIEN_OFFLINE", raising=False)
    return state


def test_addresses() -> None:
    assert parse("hf://anna/faces") == HubAddress("anna/faces")
    assert parse("hf://anna/faces@v2") == HubAddress("anna/faces", revision="v2")
    assert parse("hf://anna/faces/a/b.safetensors") == HubAddress("anna/faces", "a/b.safetensors")
    upwards = ("hf://../x", "hf://a/b/../c.safetensors", "hf://a/b@../../c", "hf://a/b@/c")
    for wrong in ("hf://anna", "hf://anna/", *upwards, "https://huggingface.co/a/b"):
        with pytest.raises(InputError, match="no address of the Hub"):
            parse(wrong)
    with pytest.raises(UnsafeWeightsError, match=r"net\.pkl is no \.safetensors file"):
        parse("hf://anna/faces/net.pkl")


def test_a_generator_is_loaded_from_its_address(hub: Hub, tmp_path: Path) -> None:
    hub.files["small.safetensors"] = make(tmp_path / "small.safetensors")
    assert load_generator("hf://anna/faces").img_resolution == 8
    assert hub.calls[0] == ("list", (("anna/faces", None), {}))
    what, (args, kwargs) = hub.calls[1]
    assert (what, args) == ("download", ("anna/faces", "small.safetensors"))
    assert kwargs["cache_dir"] == tmp_path / "cache" / "hub" and kwargs["local_files_only"] is False


def test_offline_asks_nobody(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_OFFLINE", "1")
    hub.files["small.safetensors"] = make(tmp_path / "small.safetensors")
    assert find_weights("hf://anna/faces/small.safetensors") == hub.files["small.safetensors"]
    assert hub.calls[0][1][1]["local_files_only"] is True


def test_which_file_must_be_clear(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"has no \.safetensors file"):
        pull_from_hub("hf://anna/faces")
    hub.files |= {"a.safetensors": tmp_path, "b.safetensors": tmp_path}
    with pytest.raises(WeightsError, match="has 2 files of weights") as info:
        pull_from_hub("hf://anna/faces")
    assert info.value.hint == "say which: a.safetensors, b.safetensors"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RepositoryNotFoundError", "no such repository"),
        ("GatedRepoError", "asks for an agreement"),
        ("RevisionNotFoundError", "no such file or revision"),
        ("EntryNotFoundError", "no such file or revision"),
        ("LocalEntryNotFoundError", "not in the cache"),
        ("HfHubHTTPError", "hf://anna/faces/a.safetensors: 500 the server"),
    ],
)
def test_errors_of_the_library_become_one_line(hub: Hub, name: str, message: str) -> None:
    hub.error = getattr(sys.modules["huggingface_hub.errors"], name)("500 the server\nis down")
    with pytest.raises(WeightsError, match=message) as info:
        pull_from_hub("hf://anna/faces/a.safetensors")
    assert info.value.hint


def test_weights_go_there_with_a_card(hub: Hub, tmp_path: Path) -> None:
    path = make(tmp_path / "small.safetensors")
    url = push_to_hub(path, read_recipe(path), "hf://anna/faces", licence="CC BY-NC 4.0")
    assert url == "https://huggingface.co/anna/faces/commit/1"
    assert hub.calls[0] == ("create", (("anna/faces",), {"private": True, "exist_ok": True}))
    weights, card = hub.calls[1][1][0][1]
    assert (weights.path_in_repo, weights.path_or_fileobj) == ("small.safetensors", path)
    assert card.path_in_repo == "README.md"
    text = card.path_or_fileobj.decode()
    assert text.startswith("---\nlibrary_name: mien\nlicense: cc-by-nc-4.0\n")
    assert "stylegan2.Generator" in text and '"kimg": 3' in text and '"img_resolution": 8' in text


def test_an_own_licence_is_named_in_the_card(tmp_path: Path) -> None:
    recipe = read_recipe(make(tmp_path / "small.safetensors"))
    card = model_card(recipe, file="small.safetensors", licence="for my friends")
    assert 'license: other\nlicense_name: "for my friends"\n' in card


def test_what_cannot_go_there_is_said(hub: Hub, tmp_path: Path) -> None:
    path = make(tmp_path / "small.safetensors")
    recipe = read_recipe(path)
    with pytest.raises(InputError, match="without a licence"):
        push_to_hub(path, recipe, "hf://anna/faces", licence=" ")
    with pytest.raises(InputError, match=r"is no \.safetensors file"):
        push_to_hub(tmp_path / "net.pkl", recipe, "hf://anna/faces", licence="MIT")
    assert not hub.calls


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError) as info:
        pull_from_hub("hf://anna/faces")
    assert "mien[hub]" in info.value.hint


# ---- The library itself, against a small server with the Hub's answers

COMMIT = "c" * 40
CODE = """
import sys
from mien.weights.hub import pull_from_hub
for address, offline in (("hf://anna/faces", False), ("hf://anna/faces", True), ("hf://bob/none", False)):
    try:
        print(pull_from_hub(address, offline=offline))
    except Exception as err:
        print(type(err).__name__, err)
"""


def test_the_library_itself_brings_a_file(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    content = make(tmp_path / "small.safetensors").read_bytes()
    listing = {
        "id": "anna/faces",
        "sha": COMMIT,
        "siblings": [{"rfilename": "small.safetensors"}, {"rfilename": "README.md"}],
    }
    tree = [{"type": "file", "path": "small.safetensors", "size": len(content), "oid": "a" * 40}]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            body, headers, code = b"{}", {"X-Error-Code": "RepoNotFound"}, 404
            if self.path.startswith("/api/models/anna/faces"):
                body = json.dumps(tree if "/tree/" in self.path else listing).encode()
                headers, code = {"Content-Type": "application/json"}, 200
            elif self.path.startswith("/anna/faces/resolve/main/small.safetensors"):
                etag = hashlib.sha256(content).hexdigest()
                body, headers, code = content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, 200
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        env = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "MIEN_CACHE": str(tmp_path / "cache"),
        }
        result = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, env=env, timeout=120, check=False
        )
        server.shutdown()
        thread.join()
    first, again, missing = result.stdout.splitlines()
    assert first == again, result.stderr
    assert Path(first).read_bytes() == content
    assert Path(first).is_relative_to(tmp_path / "cache" / "hub")
    assert missing == "WeightsError hf://bob/none: there is no such repository"
