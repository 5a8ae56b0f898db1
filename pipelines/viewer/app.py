"""The viewer's HTTP interface: the page's own files, and JSON about the data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from data_engine.dataset import Dataset
from data_engine.errors import FdeError, ImageError, QueryError, StorageError
from pipelines.viewer.guard import Guard
from pipelines.viewer.marks import mark
from pipelines.viewer.overview import overview, suggestions
from pipelines.viewer.paging import Place, count, page
from pipelines.viewer.pictures import SIDES, Pictures, mask_png
from pipelines.viewer.search import Search
from pipelines.viewer.story import story
from pipelines.viewer.tables import Tables

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MOST_BYTES_OF_A_MARK = 4096
_FOREVER = "private, max-age=86400, immutable"


def make_app(dataset: Dataset, host: str, token: str | None, read_only: bool) -> Guard:
    """The whole app, guarded. `host` is what the server listens on."""
    tables = Tables(dataset)
    pictures = Pictures(tables)

    def answer(work: Callable[[Request], dict[str, Any]]) -> Callable[[Request], JSONResponse]:
        def handler(request: Request) -> JSONResponse:
            return JSONResponse(_plain(work(request)), headers={"cache-control": "no-store"})

        return handler

    def search(request: Request) -> dict[str, Any]:
        given = request.query_params
        after, before = (Place.read(given[k]) if given.get(k) else None for k in ("after", "before"))
        return page(tables, Search.of(given), after, before, _number(given, "size", 48))

    def counted(request: Request) -> dict[str, Any]:
        given = request.query_params
        return count(tables, Search.of(given), _number(given, "shard", 0))

    def told(request: Request) -> dict[str, Any]:
        return story(tables, request.path_params["shard"], request.path_params["image_id"])

    def picture(request: Request) -> Response:
        size = request.query_params.get("size", "full")
        if size not in SIDES:
            raise QueryError(f"a size {size[:40]!r}", f"it is one of {', '.join(SIDES)}")
        jpeg = pictures.jpeg(request.path_params["shard"], request.path_params["image_id"], size)
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": _FOREVER})

    def masked(request: Request) -> Response:
        png = mask_png(tables, request.path_params["shard"], request.path_params["annotation_id"])
        return Response(png, media_type="image/png", headers={"cache-control": _FOREVER})

    async def marked(request: Request) -> JSONResponse:
        if read_only:
            raise HTTPException(403, "the viewer was started with --read-only")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BYTES_OF_A_MARK:
                raise HTTPException(413, "a mark is a short JSON object")
        try:
            given = json.loads(body)
            shard, id_, as_ = str(given["shard"]), str(given["annotation_id"]), given["mark"]
        except (ValueError, TypeError, KeyError) as error:
            raise HTTPException(400, "a mark has shard, annotation_id and mark") from error
        await run_in_threadpool(mark, tables, shard, id_, None if as_ is None else str(as_))
        return JSONResponse({"annotation_id": id_, "mark": as_})

    routes = [
        Route("/", _file),
        Route("/static/{name}", _file),
        Route("/api/overview", answer(lambda _: overview(tables, read_only))),
        Route("/api/suggestions", answer(lambda _: suggestions(tables))),
        Route("/api/search", answer(search)),
        Route("/api/count", answer(counted)),
        Route("/api/images/{shard}/{image_id}", answer(told)),
        Route("/images/{shard}/{image_id}.jpg", picture),
        Route("/masks/{shard}/{annotation_id}.png", masked),
        Route("/api/marks", marked, methods=["POST"]),
    ]
    handlers = {FdeError: _refused, HTTPException: _refused}
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Guard(app, host, token)


def _file(request: Request) -> Response:
    """A file of the page. Names come from the folder's own list: none can lead out of it."""
    name = request.path_params.get("name", "index.html")
    folder = files("pipelines.viewer") / "static"
    suffix = f".{name.rpartition('.')[2]}"
    if name not in {file.name for file in folder.iterdir()} or suffix not in _TYPES:
        raise HTTPException(404, "there is no such file")
    return Response(
        (folder / name).read_bytes(),
        media_type=f"{_TYPES[suffix]}; charset=utf-8",
        headers={"cache-control": "no-cache"},
    )


def _refused(_: Request, error: Exception) -> JSONResponse:
    """An error as the page shows it: one line, and what to do."""
    never = {"cache-control": "no-store"}
    match error:
        case ImageError():
            return JSONResponse({"error": error.message, "reason": error.reason}, 404, never)
        case QueryError():
            return JSONResponse({"error": error.message, "hint": error.hint}, 400, never)
        case FdeError():
            return JSONResponse(
                {"error": error.message, "hint": error.hint},
                507 if isinstance(error, StorageError) else 500,
                never,
            )
        case HTTPException():
            return JSONResponse({"error": error.detail}, error.status_code, never)
    raise error


def _number(given: Mapping[str, str], name: str, otherwise: int) -> int:
    text = given.get(name, "")
    if text and not (text.isdecimal() and len(text) < 10):
        raise QueryError(f"{name} is {text[:40]!r}", "it is a number")
    return int(text or otherwise)


def _plain(value: Any) -> Any:
    """A value as JSON has it: numbers that are none become null."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
