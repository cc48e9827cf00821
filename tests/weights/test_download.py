"""A file arrives once, whole and as it was meant, whatever the server does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mien.errors import HashMismatchError, MienError, WeightsError
from mien.report import Step
from mien.weights.download import Download, cached, default_cache, direct_address, fetch, is_offline

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PAGES = {
    "page": b"<html>log in</html>",
    "hidden page": b"\n <!DOCTYPE html><html>hello</html>",
    "quota": b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>",
    "warning": b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>",
    "login": b"<!doctype html><html><body>You need access</body></html>",
}


@dataclass
class Server:
    """A small server whose behaviour a test chooses: one entry of `plan` per request, the last one for all others."""

    url: str = ""
    plan: list[str] = field(default_factory=lambda: ["whole"])
    ranges: list[str | None] = field(default_factory=list)
    conditions: list[str | None] = field(default_factory=list)
    etag: str = ""

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
            condition = self.headers.get("If-Range")
            state.conditions.append(condition)
            if condition not in (None, state.etag):
                asked = None
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and what != "no ranges" else 0
            if what.isdigit():
                self.send_error(int(what))
                return
            body = {**PAGES, "other": CONTENT[::-1], "longer": CONTENT * 2}.get(what, CONTENT)
            kind = "text/html; charset=utf-8" if what in PAGES and what != "hidden page" else "application/octet-stream"
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", kind)
            if state.etag:
                self.send_header("ETag", state.etag)
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


# ---- Where the publisher says less


def unknown(server: Server, **facts: object) -> Download:
    values = {"url": f"{server.url}/file.bin", "sha256": None, "size_bytes": None, "license": "CC0"} | facts
    return Download(**values)  # type: ignore[arg-type]


def recorded(folder: Path) -> dict[str, str]:
    return {name: record["sha256"] for name, record in json.loads((folder / "hashes.json").read_text()).items()}


def test_a_file_without_a_hash_is_trusted_on_first_use(server: Server, tmp_path: Path) -> None:
    steps: list[Step] = []
    path = fetch(unknown(server), cache=tmp_path, on_step=steps.append)
    assert path.read_bytes() == CONTENT
    assert recorded(tmp_path) == {"file.bin": SHA256}
    assert steps[-1].total == len(CONTENT)
    server.plan = ["other"]
    path.write_bytes(b"changed on the disk")
    with pytest.raises(HashMismatchError, match="not the expected one"):
        fetch(unknown(server), cache=tmp_path, attempts=1)
    server.plan = ["whole"]
    assert fetch(unknown(server), cache=tmp_path).read_bytes() == CONTENT


def test_the_beginning_of_a_hash_is_checked_and_the_rest_recorded(server: Server, tmp_path: Path) -> None:
    fetch(unknown(server, sha256=SHA256[:8]), cache=tmp_path)
    assert recorded(tmp_path) == {"file.bin": SHA256}
    with pytest.raises(HashMismatchError, match="not the expected one, 00000000"):
        fetch(unknown(server, sha256="00000000", filename="another.bin"), cache=tmp_path, attempts=1)


def test_offline_tells_a_missing_file_from_a_damaged_one(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="in the cache is damaged or another file, and downloads are off"):
        fetch(server.wanted(), cache=tmp_path, offline=True)


def test_a_hash_that_cannot_be_recorded_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT)
    (tmp_path / ".hashes.json.lock").mkdir()
    with pytest.raises(MienError, match=r"cannot record the hash of file\.bin"):
        cached(unknown(server), cache=tmp_path)


def test_a_file_put_there_by_hand_is_recorded(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT)
    assert fetch(unknown(server), cache=tmp_path, offline=True).is_file()
    assert recorded(tmp_path) == {"file.bin": SHA256}
    assert cached(unknown(server), cache=tmp_path) == tmp_path / "file.bin"
    assert cached(unknown(server, filename="absent"), cache=tmp_path) is None
    assert not server.ranges


def test_without_a_hash_the_server_must_vouch_for_the_first_half(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut", "whole"]
    assert fetch(unknown(server), cache=tmp_path, pause_s=0).read_bytes() == CONTENT
    assert server.ranges == ["bytes=0-", "bytes=0-"]  # nothing said which version it was
    server.plan, server.etag = ["cut", "whole"], '"one"'
    server.ranges.clear()
    assert fetch(unknown(server, filename="b.bin"), cache=tmp_path, pause_s=0).read_bytes() == CONTENT
    assert server.ranges == ["bytes=0-", "bytes=300000-"]
    assert server.conditions[-1] == '"one"'


def test_a_file_that_changes_between_two_halves_starts_again(server: Server, tmp_path: Path) -> None:
    server.plan, server.etag = ["cut"], '"one"'
    with pytest.raises(WeightsError, match="cut after 300000 of 1024000"):
        fetch(unknown(server), cache=tmp_path, attempts=1)
    server.plan, server.etag = ["whole"], '"two"'
    assert fetch(unknown(server), cache=tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin", "hashes.json"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("quota", "over its download quota at Google Drive"),
        ("warning", "Google Drive's warning that it scans no large file"),
        ("login", "behind a login"),
        ("hidden page", "a web page instead of the file"),
    ],
)
def test_pages_are_recognised_as_what_they_are(server: Server, tmp_path: Path, what: str, message: str) -> None:
    server.plan = [what]
    with pytest.raises(WeightsError, match=message) as info:
        fetch(unknown(server), cache=tmp_path)
    assert str(tmp_path / "file.bin") in info.value.hint
    assert names(tmp_path) == []
    assert len(server.ranges) == 1


def test_links_of_google_drive_lead_to_the_file() -> None:
    wanted = "https://drive.usercontent.google.com/download?id=1a_B-2&export=download&confirm=t"
    for link in ("file/d/1a_B-2/view?usp=sharing", "uc?id=1a_B-2", "uc?export=download&id=1a_B-2", "open?id=1a_B-2"):
        assert direct_address(f"https://drive.google.com/{link}") == wanted
    for other in ("https://example.com/uc?id=1", "https://drive.google.com/drive/folders/1", "https://mega.nz/#!a!b"):
        assert direct_address(other) == other


@pytest.mark.parametrize("content", ["[1]", "{", '{"file.bin": {"sha256": "short"}}', '{"file.bin": 3}'])
def test_a_damaged_record_of_hashes_is_said(server: Server, tmp_path: Path, content: str) -> None:
    (tmp_path / "hashes.json").write_text(content)
    with pytest.raises(MienError, match=r"hashes\.json"):
        fetch(unknown(server), cache=tmp_path)
    assert not server.ranges
