"""The web service: the page in each language beside the plain API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mien.app.settings import Settings
from mien.errors import MissingExtraError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mien.app.jobs.queue import Queue
    from mien.app.studio import Studio
    from mien.app.web.errands import Effort

__all__ = ["create_app"]

FOLDER = "GRADIO_TEMP_DIR"  # where Gradio keeps what comes and goes; it reads this when a page is built


def create_app(studio: Studio, queue: Queue, settings: Settings, folder: Path, effort: Effort | None = None) -> FastAPI:
    """Return the service: /en/ and /ru/, /api/jobs, /healthz, /metrics, /docs.

    Args:
        studio: networks.
        queue: of jobs.
        settings: of the operator.
        folder: of visitors' files, which are deleted in time.
        effort: that the page asks of the queue.

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
    from mien.app.web.acts import Acts
    from mien.app.web.api import add_api
    from mien.app.web.desks import Desks
    from mien.app.web.page import CSS, build, theme
    from mien.app.web.texts import LANGUAGES

    service = FastAPI(title="mien", version=__version__)
    add_api(service, queue, settings)
    desks = Desks(studio, settings, folder)
    service.state.desks = desks

    for lang in LANGUAGES:
        page = build(Acts(desks, queue, lang, effort), keep_s=settings.jobs.keep_s)
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
