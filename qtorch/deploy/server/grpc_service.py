"""The Open Inference Protocol V2 over gRPC; needs grpcio and protobuf."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from qtorch.deploy.server.calls import Call
from qtorch.deploy.server.gateway import Gateway
from qtorch.deploy.server.logs import request_id
from qtorch.deploy.server.model_config import model_config
from qtorch.deploy.server.protocol import RequestError, checked_name, fill_infer_response, infer_request_of
from qtorch.deploy.server.stubs import inference_pb2 as messages

_SERVICE = "inference.GRPCInferenceService"
_WITHOUT_TOKEN = ("ServerLive", "ServerReady")
_OTHERS = 64  # calls beside the work that is admitted, such as for health
_WORK = ("ModelInfer", "RepositoryModelLoad", "RepositoryModelUnload")
_ENDPOINTS = {  # as over HTTP
    "ServerLive": "live",
    "ServerReady": "ready",
    "ServerMetadata": "server",
    "ModelMetadata": "metadata",
    "ModelReady": "model-ready",
    "ModelConfig": "config",
    "ModelInfer": "infer",
    "RepositoryIndex": "index",
    "RepositoryModelLoad": "load",
    "RepositoryModelUnload": "unload",
}


def make_server(gateway: Gateway) -> Any:
    """The server, to which ports can be added.

    Args:
        gateway: that every request passes.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", gateway.config.max_bytes),
            ("grpc.max_send_message_length", -1),
            # Else a second server on a port that is taken would start, and get some of the requests.
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=gateway.most + _OTHERS,
    )
    service = _Service(gateway)
    # Messages are decoded here, not by grpc, which would answer bytes that are no message with an internal error. And
    # they come as streams, of one message each, since a stream is read only once its token was looked at.
    handlers = {name: grpc.stream_unary_rpc_method_handler(service.handler(name), None, None) for name in _ENDPOINTS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    return server


class _Service:
    """One method for each of the service's, of a message and the seconds that the sender waits."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def handler(self, name: str) -> Callable[[Any, Any], Awaitable[bytes]]:
        """What grpc calls for a method."""
        request_type = getattr(messages, f"{name}Request")
        method = getattr(self, f"_{_ENDPOINTS[name].replace('-', '_')}")

        async def work(call: Call, bodies: Any, authorization: str | None, timeout_s: float | None) -> bytes:
            if name not in _WITHOUT_TOKEN:
                self.gateway.authorize(authorization)
            if name in _WORK:
                self.gateway.admit()
            body = await self._body(bodies, timeout_s)
            call.bytes_in = len(body)
            try:
                request = request_type.FromString(body)
            except DecodeError as error:
                raise RequestError(400, f"the bytes are no {request_type.DESCRIPTOR.name}.") from error
            answer: Message = await method(call, request, timeout_s)
            encoded = answer.SerializeToString()
            call.bytes_out = len(encoded)
            return encoded

        async def handle(bodies: Any, context: Any) -> bytes:
            given = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            identity = request_id(given.get("x-request-id"))
            call = Call(identity, "grpc", "POST", f"/{_SERVICE}/{name}", _ENDPOINTS[name])
            remaining = context.time_remaining()
            result = await self.gateway.record.answered(call, work(call, bodies, given.get("authorization"), remaining))
            context.set_trailing_metadata((("x-request-id", call.id),))
            if isinstance(result, RequestError):
                await context.abort(grpc.StatusCode[result.code], result.message)
                raise AssertionError("abort raises")
            return result

        return handle

    async def _body(self, bodies: Any, timeout_s: float | None) -> bytes:
        """The one message of a call, which is not read before here."""
        own = self.gateway.config.timeout_s
        seconds = own if timeout_s is None else min(own, timeout_s)
        try:
            return await asyncio.wait_for(anext(bodies), seconds)
        except TimeoutError as error:
            raise RequestError(504, f"the message did not come within {seconds:g} s.") from error
        except StopAsyncIteration as error:
            raise RequestError(400, "the call has no message: send one.") from error

    async def _live(self, call: Call, request: Any, timeout_s: float | None) -> Message:
        return messages.ServerLiveResponse(live=True)

    async def _ready(self, call: Call, request: Any, timeout_s: float | None) -> Message:
        return messages.ServerReadyResponse(ready=self.gateway.ready)

    async def _server(self, call: Call, request: Any, timeout_s: float | None) -> Message:
        return messages.ServerMetadataResponse(**self.gateway.server_metadata())

    async def _metadata(self, call: Call, request: Any, timeout_s: float | None) -> Message:
        call.model, call.version = request.name, request.version
        found = await self.gateway.metadata(request.name, request.version, timeout_s)
        kind = messages.ModelMetadataResponse.TensorMetadata
        tensors = {
            side: [kind(name=each["name"], datatype=each["datatype"], shape=each["shape"]) for each in found[side]]
            for side in ("inputs", "outputs")
        }
        return messages.ModelMetadataResponse(
            name=found["name"], versions=found["versions"], platform=found["platform"], **tensors
        )

    async def _model_ready(self, call: Call, request: Any, timeout_s: float | None) -> Message:
        call.model, call.version = request.name, request.version
        ready = await self.gateway.model_ready(request.name, request.version, timeout_s)
        return messages.ModelReadyResponse(ready=ready)

    async def _config(self, call: Call, request: Any, timeout_s: float | None) -> Message:
        call.model, call.version = request.name, request.version
        found = model_config(await self.gateway.metadata(request.name, request.version, timeout_s))
        config = messages.ModelConfig(
            name=found["name"],
            platform=found["platform"],
            backend=found["backend"],
            max_batch_size=found["max_batch_size"],
            input=[messages.ModelInput(**each) for each in found["input"]],
            output=[messages.ModelOutput(**each) for each in found["output"]],
        )
        return messages.ModelConfigResponse(config=config)

    async def _infer(self, call: Call, request: Any, timeout_s: float | None) -> Message:
        call.model, call.version = request.model_name, request.model_version
        # Numbers in fields take long to read, those in bytes do not.
        size = 0 if request.raw_input_contents else request.ByteSize()
        limits = self.gateway.config.limits
        parsed = await self.gateway.read(size, infer_request_of, request, limits, timeout_s=timeout_s)
        answer = messages.ModelInferResponse()
        fill_infer_response(await self.gateway.infer(call, parsed, timeout_s), answer)
        return answer

    async def _index(self, call: Call, request: Any, timeout_s: float | None) -> Message:
        kind = messages.RepositoryIndexResponse.ModelIndex
        listed = await self.gateway.catalogue.index()
        return messages.RepositoryIndexResponse(
            models=[kind(**each) for each in listed if not request.ready or each["state"] == "READY"]
        )

    async def _load(self, call: Call, request: Any, timeout_s: float | None) -> Message:
        call.model = checked_name(request.model_name)
        if request.parameters:
            raise RequestError(400, "load takes no parameters: models are those of the server's folder.")
        await self.gateway.catalogue.load(request.model_name)
        return messages.RepositoryModelLoadResponse()

    async def _unload(self, call: Call, request: Any, timeout_s: float | None) -> Message:
        call.model = checked_name(request.model_name)
        if request.parameters.keys() - {"unload_dependents"}:
            raise RequestError(400, "unload takes no parameters: models are those of the server's folder.")
        await self.gateway.catalogue.unload(request.model_name)
        return messages.RepositoryModelUnloadResponse()
