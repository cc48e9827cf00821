"""`mien web`: the page, the plain API, and workers for what takes longer than a moment."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.app.options import ENGINE, Engine
from mien.app.settings import load_settings
from mien.app.terminal.items import check_network
from mien.app.terminal.screen import note
from mien.app.terminal.spread import spread
from mien.errors import MissingExtraError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mien.app.jobs.queue import Queue

__all__ = ["app"]

TIDY_S = 60.0

app = typer.Typer()


@contextmanager
def _workers(queue: Queue, num: int, options: dict[str, Any]) -> Iterator[None]:
    """Keep workers alive; they end with this process, however it ends."""
    from mien.app.jobs.supervisor import CODE, Supervisor

    def start(name: str) -> subprocess.Popen[bytes]:
        level = logging.getLogger().getEffectiveLevel()
        told = json.dumps({**options, "name": name, "level": level, "num": num, "together": 1})
        return subprocess.Popen([sys.executable, "-c", CODE, told], stdin=subprocess.PIPE)

    supervisor = Supervisor(queue, num, start)
    thread = threading.Thread(target=supervisor.serve)
    thread.start()
    try:
        yield
    finally:
        supervisor.stop()
        thread.join()


@contextmanager
def _tidied(service: FastAPI, folder: Path) -> Iterator[None]:
    """Delete what is too old while the service runs, and everything when it ends."""
    over = threading.Event()

    def tidy() -> None:
        while not over.wait(TIDY_S):
            service.state.desks.tidy()

    thread = threading.Thread(target=tidy, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        shutil.rmtree(folder, ignore_errors=True)


@app.command()
@spread
def web(
    host: Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")] = 7860,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Worker processes; 0 where `mien worker` runs beside.")
    ] = 1,
    engine: Engine = ENGINE,
) -> None:
    """Serve a page on which people change faces in photos, in English and Russian, and an API for programs.

    Settings are in mien.toml or MIEN_* variables: docs/service.md. What the page can: docs/web.md.

    Example: mien web --port 7860
    """
    settings = load_settings()
    check_network(engine.network)
    try:
        import uvicorn
    except ImportError as err:
        raise MissingExtraError("the page needs Gradio", hint="pip install 'mien[web]'") from err
    from mien.app.jobs.queue import open_queue
    from mien.app.web.service import create_app

    studio = engine.studio()
    queue = open_queue(settings.jobs)
    folder = Path(tempfile.mkdtemp(prefix="mien-web-"))
    service = create_app(studio, queue, settings, folder)
    _ = studio.G, studio.detector, studio.face_net, studio.encoder, studio.directions, studio.stats
    note(f"http://{host}:{port}/ shows the page, /docs the API; Ctrl-C ends both")
    server = uvicorn.Server(
        uvicorn.Config(service, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)
    )
    with _tidied(service, folder), _workers(queue, workers, asdict(engine)):
        server.run()
