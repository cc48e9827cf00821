"""`mien web`: the page in each language, the plain API, and workers for what takes longer than a moment."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.app.items import check_network
from mien.app.options import Device, Network, Precision, Seed
from mien.app.screen import note
from mien.app.settings import DEFAULT_NETWORK, Settings, load_settings
from mien.errors import MissingExtraError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mien.app.jobs import Queue
    from mien.app.studio import Studio

__all__ = ["app", "create_app"]

TIDY_S = 60.0
FOLDER = "GRADIO_TEMP_DIR"  # where Gradio keeps what comes and goes; it reads this when a page is built

app = typer.Typer()


def create_app(studio: Studio, queue: Queue, settings: Settings, folder: Path) -> FastAPI:
    """Return the service: /en/ and /ru/, /api/jobs, /healthz, /metrics, /docs.

    Args:
        studio: networks.
        queue: of jobs.
        settings: of the operator.
        folder: of visitors' files, which are deleted in time.

    Raises:
        MissingExtraError: the extra `web` is not installed.
    """
    os.environ[FOLDER] = str(folder)
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError as err:
        raise MissingExtraError("the page needs Gradio", hint="pip install 'mien[web]'") from err
    from mien import __version__
    from mien.app.web_acts import Acts
    from mien.app.web_api import add_api
    from mien.app.web_desk import Desks
    from mien.app.web_page import CSS, build, theme
    from mien.app.web_texts import LANGUAGES

    service = FastAPI(title="mien", version=__version__)
    add_api(service, queue, settings)
    desks = Desks(studio, settings, folder)
    service.state.desks = desks

    for lang in LANGUAGES:
        page = build(Acts(desks, queue, lang), keep_s=settings.jobs.keep_s)
        service = gr.mount_gradio_app(
            service,
            page,
            path=f"/{lang}",
            theme=theme(),
            css=CSS,
            footer_links=[],
            show_error=False,
            ssr_mode=False,
            max_file_size=settings.trust.max_bytes,
        )
    return service


@contextmanager
def _workers(queue: Queue, num: int, options: dict[str, Any]) -> Iterator[None]:
    """Keep workers alive; they end with this process, however it ends."""
    from mien.app.supervisor import CODE, Supervisor

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
def web(
    host: Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")] = 7860,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Worker processes; 0 where `mien worker` runs beside.")
    ] = 1,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Serve a page on which people change faces in photos, in English and Russian, and an API for programs.

    Settings are in mien.toml or MIEN_* variables: docs/service.md. What the page can: docs/web.md.

    Example: mien web --port 7860
    """
    settings = load_settings()
    check_network(network)
    try:
        import uvicorn
    except ImportError as err:
        raise MissingExtraError("the page needs Gradio", hint="pip install 'mien[web]'") from err
    from mien.app.jobs import open_queue
    from mien.app.studio import Studio

    studio = Studio(network, device=device, precision=precision, seed=seed)
    queue = open_queue(settings.jobs)
    folder = Path(tempfile.mkdtemp(prefix="mien-web-"))
    service = create_app(studio, queue, settings, folder)
    _ = studio.G, studio.detector, studio.face_net, studio.encoder, studio.directions, studio.stats
    note(f"http://{host}:{port}/ shows the page, /docs the API; Ctrl-C ends both")
    options = dict(network=network, device=device, precision=precision, seed=seed)
    server = uvicorn.Server(
        uvicorn.Config(service, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)
    )
    with _tidied(service, folder), _workers(queue, workers, options):
        server.run()
