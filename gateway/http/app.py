"""The application: the table's routes and the node's own pages on one FastAPI app."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.handlers.unsupported import REFUSED
from gateway.health import described, health_lines
from gateway.http import metrics, openapi
from gateway.http.endpoint import Endpoint
from gateway.http.routes import POINTS, ROUTES, Route
from gateway.http.stream import StreamEndpoint
from gateway.services import NodeState, Services

TITLE = "Vecraft DB"
DIALECT_VERSION = "1.20.0"
"""The version of the dialect; clients compare it with their own."""

_HOT = re.compile(r"(?:/v1)?/collections/([^/]+)/points(/search|/query|/scroll)?")


class HotPath:
    """Dispatches frequent requests directly to their endpoints: FastAPI's layers would take half as long as the endpoint."""

    def __init__(self, app: ASGIApp, endpoints: dict[Route, Endpoint]) -> None:
        self._app = app
        self._endpoints = {
            (method, tail): next(e for r, e in endpoints.items() if (r.method, r.path) == (method, f"{POINTS}{tail}"))
            for method, tail in (("POST", "/search"), ("POST", "/query"), ("POST", "/scroll"), ("POST", ""), ("PUT", ""))
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (match := _HOT.fullmatch(scope["path"])):
            endpoint = self._endpoints.get((scope["method"], match[2] or ""))
            if endpoint is not None:
                scope["path_params"] = {"collection_name": match[1]}
                return await endpoint(scope, receive, send)
        await self._app(scope, receive, send)


def create_app(services: Services) -> ASGIApp:
    """The ASGI application that serves `services`."""
    node = services.node
    app = FastAPI(title=TITLE, version=node.version, redoc_url=None)
    endpoints = {route: (Endpoint if route.stream is None else StreamEndpoint)(route, services) for route in ROUTES}
    for prefix in ("", "/v1"):
        for route, endpoint in endpoints.items():
            app.router.routes.append(StarletteRoute(prefix + route.path, endpoint, methods=[route.method]))
        for refused in REFUSED:
            app.router.routes.append(StarletteRoute(prefix + refused.path, refused, methods=[refused.method]))
    _add_pages(app, services)
    document = openapi.document(TITLE, node.version)
    app.openapi = lambda: document  # type: ignore[method-assign]
    app.add_exception_handler(HTTPException, _plain_error)
    app.add_exception_handler(RequestValidationError, _wrong_parameters)
    return HotPath(app, endpoints)


def _add_pages(app: FastAPI, services: Services) -> None:
    """Adds pages for operators and probes, each also under `/v1`. Only `/` belongs to the dialect."""
    node = services.node

    def page(path: str) -> Callable[[Callable[..., Any]], None]:
        def add(answer: Callable[..., Any]) -> None:
            for prefix in ("", "/v1"):
                app.add_api_route(prefix + path, answer, methods=["GET", "HEAD"])

        return add

    @app.api_route("/", methods=["GET", "HEAD"])
    async def root() -> dict[str, str]:
        return {"title": TITLE, "version": DIALECT_VERSION, "vecraft": node.version, "node": node.name}

    @page("/healthz")
    def healthz() -> Response:  # in a thread, because it asks the log
        good, lines = health_lines(services.health.look())
        return _probe(good, [f"healthz check {'passed' if good else 'failed'}", *lines])

    @page("/livez")
    async def livez() -> Response:
        return _probe(True, ["livez check passed"])

    @page("/readyz")
    async def readyz() -> Response:
        ready = node.ready()
        are_all = ready and not node.shards.quarantined()
        return _probe(ready, ["all shards are ready" if are_all else "some shards are not ready", *_lines(node)])

    @page("/admin/health")
    def health_page() -> Response:  # in a thread, because it asks the log
        body = described(services.health.look()) | _state(node)
        return Response(orjson.dumps(body), media_type="application/json")

    @page("/metrics")
    def metrics_page(per_collection: bool = False, anonymize: bool = False) -> Response:
        text = metrics.exposition(services, per_collection, anonymize)
        return Response(text, media_type="text/plain; version=0.0.4")


def _state(node: NodeState) -> dict[str, Any]:
    done, total = node.replayer.behind()
    failure = node.failure()
    state: dict[str, Any] = {"ready": node.ready(), "replayed": done, "to_replay": total}
    if quarantined := node.shards.quarantined().values():
        state["quarantined"] = [{"collection": q.collection, "shard": q.number, "reason": q.reason} for q in quarantined]
    if (brokers := node.journal.brokers()) is not None:
        state["kafka"] = {"state": "well" if brokers.well else "trouble", "since": brokers.since.isoformat(timespec="seconds")}
        state["kafka"] |= {name: texts for name, texts in (("causes", brokers.causes), ("remarks", brokers.remarks)) if texts}
    return state | ({"failure": failure} if failure is not None else {})


def _lines(node: NodeState) -> list[str]:
    """What keeps the node, or some of its shards, from being ready."""
    state = _state(node)
    lines = [f"shard {one['shard']} of {one['collection']!r}: {one['reason']}" for one in state.get("quarantined", ())]
    if not state["ready"]:
        lines.append(f"replayed {state['replayed']} of {state['to_replay']} records")
    return [*lines, state["failure"]] if "failure" in state else lines


def _probe(good: bool, lines: list[str]) -> Response:
    """A page of plain text: the first line is the answer, the others say why."""
    return Response("".join(f"{line}\n" for line in lines), 200 if good else 503, media_type="text/plain")


def _wrong_parameters(request: Request, error: Exception) -> Response:
    """Parameters of a page that cannot be read, in the dialect's form."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    text = f"Validation error in query parameters: [{first['loc'][-1]}: {first['msg']}]"
    return Response(orjson.dumps({"status": {"error": text}, "time": 0.0}), 422, media_type="application/json")


def _plain_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, in the dialect's form."""
    assert isinstance(error, HTTPException)
    body = {"status": {"error": f"{error.detail}: {request.method} {request.url.path}"}, "time": 0.0}
    return Response(orjson.dumps(body), error.status_code, error.headers, "application/json")
