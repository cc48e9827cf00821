"""A small server for one person on one machine: the page, the pictures, and verdicts that are kept before it answers.

It listens on this machine alone. Requests for another host's name are refused (a stranger's page that points its name
at us), and so are verdicts without the word that only our page was given.
"""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, cast
from urllib.parse import unquote

from mien.app.labelling.desk import SIDES, LabelDesk
from mien.errors import InputError, MienError
from mien.training.pair_labels import LABELS

__all__ = ["LabelServer"]

HOST = "127.0.0.1"
WORD = "X-Mien-Word"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
MAX_BODY, MAX_REASON = 4096, 200


class LabelServer(ThreadingHTTPServer):
    """Serves a desk until `shutdown`; `address` is what to open.

    Args:
        desk: the work.
        port: to listen at, 0 for any that is free.

    Raises:
        InputError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, desk: LabelDesk, port: int = 0) -> None:
        self.desk, self.word = desk, secrets.token_urlsafe(16)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as err:
            raise InputError(f"cannot listen at port {port}: {err}", hint="choose another --port, or 0") from err
        text = (resources.files("mien.app.labelling") / "page.html").read_text(encoding="utf-8")
        self.page = text.replace("%WORD%", self.word).encode()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.port}/"


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    timeout = 60.0

    @property
    def _server(self) -> LabelServer:
        return cast(LabelServer, self.server)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: whoever labels sees the page."""

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, *, cache: str = "no-store") -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), "Cache-Control": cache, **HEADERS}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _say(self, facts: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(facts).encode(), "application/json", status)

    def _is_ours(self) -> bool:
        names = {f"{host}:{self._server.port}" for host in (HOST, "localhost")}
        return self.headers.get("Host") in names

    def do_GET(self) -> None:
        """Send the page, what it shows now, or a picture."""
        parts = unquote(self.path.partition("?")[0]).strip("/").split("/")
        if not self._is_ours():
            self._say({"error": "not this host"}, HTTPStatus.FORBIDDEN)
        elif parts == [""]:
            self._send(self._server.page, "text/html; charset=utf-8")
        elif parts == ["now"]:
            self._say(self._server.desk.now())
        elif len(parts) == 3 and parts[0] == "pair" and parts[2] in SIDES:
            try:
                data = self._server.desk.pool.file(parts[1], f"{parts[2]}.png")
                self._send(data, "image/png", cache="private, max-age=3600")
            except InputError as err:
                self._say({"error": err.message}, HTTPStatus.NOT_FOUND)
        else:
            self._say({"error": "nothing here"}, HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Take a verdict, or the latest back; answer with what comes next once it is on the disk."""
        try:
            length = int(self.headers.get("Content-Length", "0"))
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY:
            self.close_connection = True
            self._say({"error": "too long"}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(length)
        if not self._is_ours() or not secrets.compare_digest(self.headers.get(WORD, ""), self._server.word):
            self._say({"error": "open the page anew: it belongs to another run"}, HTTPStatus.FORBIDDEN)
            return
        try:
            self._do(self.path, body)
        except InputError as err:
            self._say({"error": err.message}, HTTPStatus.BAD_REQUEST)
        except MienError as err:
            self._say({"error": f"{err.message}; {err.hint}"}, HTTPStatus.INSUFFICIENT_STORAGE)
        else:
            self._say(self._server.desk.now())

    def _do(self, path: str, body: bytes) -> None:
        if path == "/undo":
            self._server.desk.undo()
        elif path == "/label":
            self._server.desk.put(*_verdict(body))
        else:
            raise InputError("nothing here")


def _verdict(body: bytes) -> tuple[str, str, str]:
    try:
        said = json.loads(body)
        key, label, reason = (str(said.get(name, "")) for name in ("key", "label", "reason"))
    except (ValueError, AttributeError, RecursionError) as err:
        raise InputError("that is no verdict") from err
    if label not in LABELS or len(reason) > MAX_REASON or not (reason.isprintable() and label):
        raise InputError("that is no verdict")
    return key, label, reason
