"""The Open Inference Protocol V2 between bytes and arrays; needs numpy alone."""

from qtorch.deploy.server.protocol.errors import RequestError
from qtorch.deploy.server.protocol.messages import (
    InferInput,
    InferRequest,
    InferResponse,
    Limits,
    RequestedOutput,
)
from qtorch.deploy.server.protocol.names import checked_name, checked_version
from qtorch.deploy.server.protocol.proto import fill_infer_response, infer_request_of
from qtorch.deploy.server.protocol.rest import json_bytes, parse_infer, render_infer

__all__ = [
    "InferInput",
    "InferRequest",
    "InferResponse",
    "Limits",
    "RequestError",
    "RequestedOutput",
    "checked_name",
    "checked_version",
    "fill_infer_response",
    "infer_request_of",
    "json_bytes",
    "parse_infer",
    "render_infer",
]
