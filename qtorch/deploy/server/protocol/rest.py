"""Requests and responses over HTTP: JSON, and tensors as bytes behind it."""

from collections.abc import Mapping

from qtorch.deploy.server.protocol.messages import InferRequest, InferResponse, Limits


def parse_infer(
    body: bytes, headers: Mapping[str, str], model: str, version: str | None, limits: Limits
) -> InferRequest:
    """A request of the Open Inference Protocol V2.

    Args:
        body: as it came, compressed or not.
        headers: of HTTP, in any case; ``Content-Encoding`` and ``Inference-Header-Content-Length`` are read.
        model: name, of the path.
        version: of the path.
        limits: what it may be at most.

    Raises:
        RequestError: 400 it is malformed, 404 the name can be no model's, 413 it is too large, 415 its encoding is not
            known.
    """
    raise NotImplementedError


def render_infer(response: InferResponse, request: InferRequest) -> tuple[bytes, dict[str, str]]:
    """The body of a response and its headers.

    Args:
        response: what was computed.
        request: which says what is wanted as bytes.
    """
    raise NotImplementedError
