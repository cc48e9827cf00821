"""The plain API beside the page: jobs, health and metrics. Its reference is at /docs, made from the types here."""

from __future__ import annotations

import hmac
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from pydantic import BaseModel

from mien.app.jobs.queue import Queue, Status
from mien.app.jobs.record import NoJobError, QueueError, QueueFullError, State
from mien.app.jobs.requests import check
from mien.app.settings import Settings
from mien.app.trust.gate import BlockedError, admit, load_block_list
from mien.app.trust.sandbox import NoDecoderError
from mien.app.web.texts import LANGUAGES
from mien.errors import InputError, MienError, UnsupportedFileError

__all__ = ["JobState", "Problem", "add_api"]

TYPES = ((0, b"\x89PNG", "image/png"), (0, b"PK\3\4", "application/zip"), (4, b"ftyp", "video/mp4"))


class JobState(BaseModel):
    """Where a job is."""

    id: str
    state: str
    position: int
    left_s: float | None
    stage: str
    done: int
    total: int
    num_results: int
    message: str
    hint: str
    notes: list[str]

    @staticmethod
    def of(status: Status) -> JobState:
        """Tell of a job what its user may know."""
        job = status.job
        return JobState(
            id=job.id,
            state=job.state.value,
            position=status.position,
            left_s=status.left_s,
            stage=job.stage,
            done=job.done,
            total=job.total,
            num_results=len(job.results),
            message=job.message,
            hint=job.hint,
            notes=list(job.notes),
        )


class Problem(BaseModel):
    """What went wrong, and what to do about it."""

    error: str
    hint: str


def status_of(err: MienError) -> int:
    """Return the HTTP status of an error."""
    kinds: tuple[tuple[type[MienError], int], ...] = (
        (NoJobError, 404),
        (QueueFullError, 429),
        (QueueError, 503),
        (NoDecoderError, 503),
        (BlockedError, 403),
        (UnsupportedFileError, 415),
        (InputError, 422),
    )
    return next((status for kind, status in kinds if isinstance(err, kind)), 500)


def user_of(request: Request) -> str:
    """Name who asks: by their key where the operator gave keys, else by their address."""
    keys = request.app.state.api_keys.reveal().split()
    if not keys:
        return f"api:{request.client.host if request.client else 'local'}"
    given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
    for i, key in enumerate(keys):
        if hmac.compare_digest(given, key.encode()):
            return f"api:key{i}"
    raise BlockedError("this service wants a key", hint="send it as Authorization: Bearer KEY")


User = Annotated[str, Depends(user_of)]


def add_api(service: FastAPI, queue: Queue, settings: Settings) -> None:
    """Add the routes, and let every error of ours be a `Problem`.

    Args:
        service: to add them to.
        queue: of jobs.
        settings: of the operator.
    """
    service.state.api_keys = settings.web.api_keys
    service.include_router(_jobs(queue, settings))
    service.include_router(_operation(queue))

    @service.exception_handler(MienError)
    def tell(_request: Request, err: MienError) -> JSONResponse:
        return JSONResponse({"error": err.message, "hint": err.hint}, status_of(err))

    @service.exception_handler(RequestValidationError)
    def tell_form(_request: Request, err: RequestValidationError) -> JSONResponse:
        place = " ".join(str(part) for part in err.errors()[0]["loc"])  # of what was sent nothing is said again
        return JSONResponse({"error": f"{place} is missing or none", "hint": "see /docs"}, 422)


def _jobs(queue: Queue, settings: Settings) -> APIRouter:
    """What users ask."""
    router, blocked = APIRouter(), load_block_list(settings.trust.block_list)
    wrong: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (403, 404, 415, 422, 429, 503)}

    @router.post("/api/jobs", status_code=202, responses=wrong, tags=["jobs"])
    def submit(
        user: User,
        request: Annotated[str, Form(description='JSON, say {"op": "generate", "seeds": [1]}')],
        pictures: Annotated[list[UploadFile] | None, File(description="In the order of the request's kind")] = None,
    ) -> JobState:
        """Put a job into the queue; what requests there are is in docs/service.md."""
        bound = settings.trust.max_bytes + 1
        inputs = [picture.file.read(bound) for picture in (pictures or [])[: settings.trust.max_pictures + 1]]
        try:
            asked = json.loads(request)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            raise InputError("the request is no JSON object", hint="see docs/service.md")
        label = check(asked, len(inputs)).label
        admit(inputs, user=user, settings=settings.trust, blocked=blocked)
        job = queue.submit(asked, user=user, operation=label, inputs=inputs)
        return JobState.of(queue.status(job.id, user))

    @router.get("/api/jobs/{job_id}", responses=wrong, tags=["jobs"])
    def show(user: User, job_id: str) -> JobState:
        """Say where a job is."""
        return JobState.of(queue.status(job_id, user))

    @router.get("/api/jobs/{job_id}/results/{number}", responses=wrong, tags=["jobs"], response_class=Response)
    def result(user: User, job_id: str, number: int) -> Response:
        """Return a picture that a job made."""
        job = queue.get(job_id, user)
        if job.state != State.DONE or not 0 <= number < len(job.results):
            raise NoJobError("there is no such result", hint="wait until the job is done")
        data = queue.results(job)[number]
        queue.delivered(job.id)
        return Response(data, media_type=next(kind for at, magic, kind in TYPES if data[at:].startswith(magic)))

    @router.post("/api/jobs/{job_id}/cancel", responses=wrong, tags=["jobs"])
    def cancel(user: User, job_id: str) -> JobState:
        """Stop a job."""
        queue.cancel(job_id, user)
        return JobState.of(queue.status(job_id, user))

    @router.delete("/api/jobs/{job_id}", status_code=204, responses=wrong, tags=["jobs"])
    def delete(user: User, job_id: str) -> None:
        """Delete a job and its pictures, whatever it does now."""
        queue.delete(job_id, user)

    @router.delete("/api/me", responses=wrong, tags=["jobs"])
    def delete_me(user: User) -> dict[str, int]:
        """Delete every job and picture of whoever asks."""
        return {"deleted": queue.delete_user_data(user)}

    return router


def _operation(queue: Queue) -> APIRouter:
    """The way to the page, and what watches over the service."""
    router = APIRouter(tags=["operation"])

    @router.get("/", include_in_schema=False)
    def choose(request: Request) -> RedirectResponse:
        """Show the page in the visitor's language."""
        wanted = request.headers.get("accept-language", "")[:2].lower()
        return RedirectResponse(f"/{wanted if wanted in LANGUAGES else next(iter(LANGUAGES))}/")

    @router.get("/healthz")
    def healthz() -> dict[str, Any]:
        """Say that the service and its queue answer."""
        return {"status": "ok", "workers": queue.counts()["workers"]}

    @router.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> str:
        """Return counts in Prometheus' text format."""
        counts = queue.counts()
        lines = ["# TYPE mien_workers gauge", f"mien_workers {counts.pop('workers')}", "# TYPE mien_jobs gauge"]
        return "\n".join([*lines, *(f'mien_jobs{{state="{name}"}} {n}' for name, n in counts.items())]) + "\n"

    return router
