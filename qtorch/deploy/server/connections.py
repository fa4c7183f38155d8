"""Connections of HTTP: how many, how long without a request, and what comes over them that is none; needs aiohttp."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from qtorch.deploy.server.app import refusal
from qtorch.deploy.server.calls import Call
from qtorch.deploy.server.gateway import Gateway
from qtorch.deploy.server.logs import request_id
from qtorch.deploy.server.protocol import RequestError


def accepting(gateway: Gateway, server: Any) -> Callable[[], asyncio.Protocol]:
    """What makes the protocol of each new connection.

    Args:
        gateway: that every request passes.
        server: of the application's runner, once that is set up.
    """
    there: set[_Connection] = set()

    def accept() -> asyncio.Protocol:
        if len(there) < gateway.config.max_connections:
            there.add(connection := _Connection(gateway, server, there.discard))
            return connection
        gateway.log("connection", error=f"refused: there are {gateway.config.max_connections} already")
        return _Full()

    return accept


class _Connection(web.RequestHandler):
    """A connection, whose errors outside of any endpoint are told, logged and counted as all others are."""

    def __init__(self, gateway: Gateway, server: Any, left: Callable[["_Connection"], None]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            lingering_time=2.0,
            # It is counted from the last response, or the beginning, until a request's head is whole.
            keepalive_timeout=gateway.config.idle_s,
        )
        self.gateway, self.left = gateway, left

    def connection_lost(self, exc: BaseException | None) -> None:
        """Makes room for another."""
        self.left(self)
        super().connection_lost(exc)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends a response; where aiohttp refuses before any handler, such as what is expected, as all else is."""
        if isinstance(resp, web.HTTPException):
            resp = self.handle_error(request, resp.status, message=resp.text)
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What aiohttp answers where no handler did."""
        call = Call(request_id(None), "http", "other", "")
        if status < 500:
            reason = (message or "").strip().partition("\n")[0][:200]
            error = RequestError(status, f"this is no HTTP that is read here: {reason}")
        else:
            error = self.gateway.record.fault(exc or RuntimeError(f"a response of {status}"), call.id)
        self.gateway.record.told(call, error.status, error.message)
        response = refusal(error)
        response.headers.update({"X-Request-Id": call.id, "Server": "qtorch"})
        response.force_close()
        return response


class _Full(asyncio.Protocol):
    """Refuses a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        body = b'{"error": "there are too many connections: try again later."}'
        head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        transport.close()
