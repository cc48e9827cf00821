"""A file arrives once, whole and as it was meant, whatever the server does."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mien.errors import HashMismatchError, MienError, WeightsError
from mien.report import Step
from mien.weights.download import Download, default_cache, fetch, is_offline

CONTENT = bytes(range(256)) * 4000


@dataclass
class Server:
    """A small server whose behaviour a test chooses: one entry of `plan` per request, the last one for all others."""

    url: str = ""
    plan: list[str] = field(default_factory=lambda: ["whole"])
    ranges: list[str | None] = field(default_factory=list)

    def wanted(self, content: bytes = CONTENT, name: str = "file.bin") -> Download:
        sha256 = hashlib.sha256(content).hexdigest()
        return Download(url=f"{self.url}/{name}", sha256=sha256, size_bytes=len(content), license="CC0")


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            what = state.plan.pop(0) if len(state.plan) > 1 else state.plan[0]
            asked = self.headers.get("Range")
            state.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and what != "no ranges" else 0
            if what.isdigit():
                self.send_error(int(what))
                return
            body = {"page": b"<html>log in</html>", "other": CONTENT[::-1], "longer": CONTENT * 2}.get(what, CONTENT)
            self.send_response(206 if start else 200)
            self.send_header(
                "Content-Type", "text/html; charset=utf-8" if what == "page" else "application/octet-stream"
            )
            self.send_header("Content-Length", str(len(body) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            end = start + 300_000 if what == "cut" else len(body)
            self.wfile.write(body[start:end])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{http_server.server_port}"
        yield state
        http_server.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_file_is_fetched_once_and_reported(server: Server, tmp_path: Path) -> None:
    steps: list[Step] = []
    path = fetch(server.wanted(), cache=tmp_path / "new", on_step=steps.append)
    assert path == tmp_path / "new" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert (steps[-1].stage, steps[-1].done, steps[-1].total) == ("download file.bin", len(CONTENT), len(CONTENT))
    fetch(server.wanted(), cache=tmp_path / "new")
    fetch(server.wanted(), cache=tmp_path / "new", offline=True)
    assert len(server.ranges) == 1
    assert names(tmp_path / "new") == ["file.bin"]


def test_a_cut_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut", "cut", "whole"]
    assert fetch(server.wanted(), cache=tmp_path, pause_s=0).read_bytes() == CONTENT
    assert server.ranges == ["bytes=0-", "bytes=300000-", "bytes=600000-"]


def test_the_next_call_goes_on_too(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut"]
    with pytest.raises(WeightsError, match="cut after 300000 of 1024000 bytes"):
        fetch(server.wanted(), cache=tmp_path, attempts=1)
    server.plan = ["whole"]
    assert fetch(server.wanted(), cache=tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=300000-"


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut", "no ranges"]
    assert fetch(server.wanted(), cache=tmp_path, pause_s=0).read_bytes() == CONTENT


def test_two_halves_of_different_files_are_noticed(server: Server, tmp_path: Path) -> None:
    wanted = server.wanted()
    (tmp_path / f".file.bin.{wanted.sha256[:12]}.part").write_bytes(b"x" * 1000)
    assert fetch(wanted, cache=tmp_path, pause_s=0).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-", "bytes=0-"]


@pytest.mark.parametrize("code", ["500", "503", "429"])
def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path, code: str) -> None:
    server.plan = [code, "whole"]
    assert fetch(server.wanted(), cache=tmp_path, pause_s=0).read_bytes() == CONTENT


def test_a_missing_file_is_said_at_once(server: Server, tmp_path: Path) -> None:
    server.plan = ["404"]
    with pytest.raises(WeightsError, match="answers 404 Not Found") as info:
        fetch(server.wanted(), cache=tmp_path)
    assert str(tmp_path / "file.bin") in info.value.hint
    assert len(server.ranges) == 1


def test_a_web_page_is_not_the_file(server: Server, tmp_path: Path) -> None:
    server.plan = ["page"]
    with pytest.raises(WeightsError, match="a web page instead of the file") as info:
        fetch(server.wanted(), cache=tmp_path)
    assert "proxy" in info.value.hint
    assert names(tmp_path) == []


@pytest.mark.parametrize("what", ["other", "longer"])
def test_another_file_is_refused(server: Server, tmp_path: Path, what: str) -> None:
    server.plan = [what]
    with pytest.raises(HashMismatchError, match=r"sha256 is not the expected one|sends more than 1024000 bytes"):
        fetch(server.wanted(), cache=tmp_path, attempts=2, pause_s=0)
    assert "file.bin" not in names(tmp_path)


def test_a_damaged_file_in_the_cache_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1])
    assert fetch(server.wanted(), cache=tmp_path).read_bytes() == CONTENT


def test_offline_names_the_place(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_OFFLINE", "1")
    assert is_offline()
    with pytest.raises(WeightsError, match="not in the cache, and downloads are off") as info:
        fetch(server.wanted(), cache=tmp_path)
    assert "MIEN_OFFLINE" in info.value.hint
    assert server.url in info.value.hint
    assert not server.ranges
    assert fetch(server.wanted(), cache=tmp_path, offline=False).is_file()


def test_an_unreachable_server_is_said(tmp_path: Path) -> None:
    wanted = Download(url="http://127.0.0.1:9/file.bin", sha256="0" * 64, size_bytes=1, license="CC0")
    with pytest.raises(WeightsError, match=r"cannot download .*refused"):
        fetch(wanted, cache=tmp_path, attempts=2, pause_s=0)


def test_a_cache_that_cannot_be_written_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MienError, match="cannot write") as info:
        fetch(server.wanted(), cache=tmp_path / "file" / "cache")
    assert "MIEN_CACHE" in info.value.hint


def test_two_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetch, args=(server.wanted(),), kwargs={"cache": tmp_path}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert len(server.ranges) == 1


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("MIEN_CACHE")
    assert default_cache().is_absolute()
    assert "mien" in default_cache().parts
