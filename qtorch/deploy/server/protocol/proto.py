"""Requests and responses as messages of GRPCInferenceService, of any module that protoc made of it."""

from typing import Any

from qtorch.deploy.server.protocol.messages import InferRequest, InferResponse, Limits


def infer_request_of(message: Any, limits: Limits) -> InferRequest:
    """The request of a ModelInferRequest.

    Args:
        message: of protobuf.
        limits: what it may be at most.

    Raises:
        RequestError: 400 it is malformed, 404 the name can be no model's, 413 it is too large.
    """
    raise NotImplementedError


def fill_infer_response(response: InferResponse, message: Any) -> None:
    """Writes a response into an empty ModelInferResponse, its tensors as raw_output_contents.

    Args:
        response: what was computed.
        message: of protobuf.
    """
    raise NotImplementedError
