"""The Open Inference Protocol V2 over HTTP; needs aiohttp."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web

from qtorch.deploy.server.calls import Call
from qtorch.deploy.server.gateway import Gateway
from qtorch.deploy.server.logs import request_id
from qtorch.deploy.server.model_config import model_config
from qtorch.deploy.server.protocol import RequestError, json_bytes, parse_infer, render_infer
from qtorch.deploy.server.risk_request import parse_risk

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_CALL = web.RequestKey("call", Call)
_WITHOUT_TOKEN = ("live", "ready")
_WORK = ("infer", "risk", "load", "unload")
T = TypeVar("T")


def make_app(gateway: Gateway) -> web.Application:
    """The application.

    Args:
        gateway: that every request passes.
    """
    app = web.Application(middlewares=[_passing(gateway)])
    endpoints = _Endpoints(gateway)
    app.router.add_get("/v2", endpoints.server, name="server", expect_handler=_expected)
    app.router.add_get("/v2/health/live", endpoints.live, name="live", expect_handler=_expected)
    app.router.add_get("/v2/health/ready", endpoints.ready, name="ready", expect_handler=_expected)
    app.router.add_get("/metrics", endpoints.metrics, name="metrics", expect_handler=_expected)
    app.router.add_post("/v2/repository/index", endpoints.index, name="index", expect_handler=_expected)
    app.router.add_post("/v2/repository/models/{model}/load", endpoints.load, name="load", expect_handler=_expected)
    app.router.add_post(
        "/v2/repository/models/{model}/unload", endpoints.unload, name="unload", expect_handler=_expected
    )
    for path, mark in (("/v2/models/{model}", ""), ("/v2/models/{model}/versions/{version}", "-version")):
        app.router.add_get(path, endpoints.metadata, name=f"metadata{mark}", expect_handler=_expected)
        app.router.add_get(f"{path}/ready", endpoints.model_ready, name=f"model-ready{mark}", expect_handler=_expected)
        app.router.add_get(f"{path}/config", endpoints.config, name=f"config{mark}", expect_handler=_expected)
        app.router.add_post(f"{path}/infer", endpoints.infer, name=f"infer{mark}", expect_handler=_expected)
        app.router.add_post(f"{path}/risk", endpoints.risk, name=f"risk{mark}", expect_handler=_expected)
    return app


def _passing(gateway: Gateway) -> Any:
    """What stands before every handler: token, admission, and one kind of error."""

    @web.middleware
    async def passing(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        endpoint = "" if resource is None else (resource.name or "").removesuffix("-version")
        call = Call(
            request_id(request.headers.get("X-Request-Id")),
            "http",
            request.method if request.method in ("GET", "HEAD", "POST") else "other",
            request.path,
            endpoint or "unknown",
            request.match_info.get("model", ""),
            request.match_info.get("version", ""),
        )
        request[_CALL] = call
        result = await gateway.record.answered(call, _work(gateway, request, call, handler))
        response = refusal(result) if isinstance(result, RequestError) else result
        response.headers["X-Request-Id"] = call.id
        response.headers["Server"] = "qtorch"
        return response

    return passing


async def _work(gateway: Gateway, request: web.Request, call: Call, handler: Handler) -> web.StreamResponse:
    if call.endpoint not in _WITHOUT_TOKEN:
        gateway.authorize(request.headers.get("Authorization"))
        gateway.keep_to_own_pages(request.headers.get("Host"), request.headers.get("Origin"))
    if call.endpoint in _WORK:
        gateway.admit()
    try:
        response = await handler(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = " or ".join(sorted(error.allowed_methods))
        raise _Refused(
            405, f"this path takes {allowed}, not {request.method[:20]}.", Allow=error.headers["Allow"]
        ) from error
    except web.HTTPException as error:
        raise _Refused(error.status, f"no such path: {request.path[:200]!r}. GET /v2 says what there is.") from error
    if isinstance(response, web.Response):
        call.bytes_out = len(response.body) if isinstance(response.body, bytes) else 0
    return response


class _Refused(RequestError):
    """A refusal with headers of its own."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(status, message)
        self.headers = headers


def refusal(error: RequestError) -> web.Response:
    """The response that tells of a refusal.

    Args:
        error: what is told.
    """
    headers = dict(getattr(error, "headers", {}))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in (429, 503):
        headers["Retry-After"] = "1"
    response = _json({"error": error.message}, error.status, headers)
    if error.status in (401, 408, 413, 429, 503):
        # The body may not have been read, and is not wanted.
        response.force_close()
    return response


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = json.dumps(value, allow_nan=False).encode()
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


class _Endpoints:
    """One method for each path."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def server(self, request: web.Request) -> web.Response:
        return _json(self.gateway.server_metadata())

    async def live(self, request: web.Request) -> web.Response:
        return _json({"live": True})

    async def ready(self, request: web.Request) -> web.Response:
        if not self.gateway.ready:
            raise RequestError(503, "not ready: no model answers, or the server is about to stop.")
        return _json({"ready": True})

    async def metrics(self, request: web.Request) -> web.Response:
        metrics = self.gateway.metrics
        return web.Response(body=metrics.text(), headers={"Content-Type": metrics.content_type})

    async def metadata(self, request: web.Request) -> web.Response:
        return _json(await self.gateway.metadata(*_model(request)))

    async def config(self, request: web.Request) -> web.Response:
        return _json(model_config(await self.gateway.metadata(*_model(request))))

    async def model_ready(self, request: web.Request) -> web.Response:
        name, version = _model(request)
        if not await self.gateway.model_ready(name, version):
            await self.gateway.metadata(name, version)  # 404 where there is none, or why it is not ready
            raise RequestError(503, f"model {name!r} is not ready.")
        return _json({"name": name, "ready": True})

    async def infer(self, request: web.Request) -> web.Response:
        gateway, call = self.gateway, request[_CALL]
        body = await self._body(request)
        parsed = await self._parsed(parse_infer, body, request)
        response = await gateway.infer(call, parsed)
        rendered, headers = render_infer(response, parsed)
        return web.Response(body=rendered, headers=headers)

    async def risk(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        parsed = await self._parsed(parse_risk, body, request)
        return _json(await self.gateway.ask(parsed.model, "risk", parsed))

    async def index(self, request: web.Request) -> web.Response:
        wanted = await self._object(request, {"ready"})
        listed = await self.gateway.catalogue.index()
        return _json([each for each in listed if not wanted.get("ready") or each["state"] == "READY"])

    async def load(self, request: web.Request) -> web.Response:
        await self._object(request, set())
        await self.gateway.catalogue.load(request.match_info["model"])
        return _json({})

    async def unload(self, request: web.Request) -> web.Response:
        parameters = (await self._object(request, {"parameters"})).get("parameters", {})
        if not isinstance(parameters, dict) or parameters.keys() - {"unload_dependents"}:
            raise RequestError(400, "unload takes no parameters: models are those of the server's folder.")
        await self.gateway.catalogue.unload(request.match_info["model"])
        return _json({})

    async def _object(self, request: web.Request, allowed: set[str]) -> dict[str, Any]:
        """A small JSON object, which may be left out."""
        body = await self._body(request)
        if not body.strip():
            return {}
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RequestError(400, f"the body is no JSON: {error}.") from error
        if not isinstance(found, dict):
            raise RequestError(400, f"the body is a JSON object or left out, not a {type(found).__name__}.")
        if unknown := sorted(found.keys() - allowed):
            raise RequestError(400, f"{unknown[0][:80]!r} is not taken here; models are those of the server's folder.")
        if not isinstance(found.get("ready", True), bool):
            raise RequestError(400, "ready is true or false.")
        return found

    async def _parsed(self, parse: Callable[..., T], body: bytes, request: web.Request) -> T:
        """What a body means."""
        limits = self.gateway.config.limits
        # Of a compressed body only the bound is known.
        size = limits.max_bytes if "Content-Encoding" in request.headers else json_bytes(body, request.headers)
        return await self.gateway.read(size, parse, body, dict(request.headers), *_model(request), limits)

    async def _body(self, request: web.Request) -> bytes:
        """The body, of which no more is read than may be, and not for longer."""
        most, seconds = self.gateway.config.max_bytes, self.gateway.config.timeout_s
        too_large = RequestError(413, f"the body has more than {most} bytes: send fewer windows at once.")
        if (request.content_length or 0) > most:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(seconds):
                async for part in request.content.iter_any():
                    size += len(part)
                    if size > most:
                        raise too_large
                    parts.append(part)
        except TimeoutError as error:
            raise RequestError(408, f"the body did not come within {seconds:g} s.") from error
        except (web.RequestPayloadError, ConnectionError) as error:
            raise RequestError(400, f"the body cannot be read: {error}.") from error
        request[_CALL].bytes_in = size
        return b"".join(parts)


async def _expected(request: web.Request) -> None:
    """Says that a body is waited for; what else may be expected is left alone, as a server may."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the response, which this is not yet


def _model(request: web.Request) -> tuple[str, str | None]:
    return request.match_info["model"], request.match_info.get("version")
