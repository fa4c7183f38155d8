"""A refusal of a request, with its codes over HTTP and gRPC."""

from typing import Any

from qtorch.errors import BriefInNotebooks

_GRPC = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "FAILED_PRECONDITION",
    411: "INVALID_ARGUMENT",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class RequestError(BriefInNotebooks, Exception):
    """A request that is refused; the message says what is wrong, where, and what to do.

    It can be pickled, so that a worker's refusal reaches the process that answers.

    Args:
        status: of HTTP: 400 malformed; 404 no such model or version; 413 too large; 415 an encoding that is not known;
            422 well formed, but not what the model takes; 503 not ready; 504 out of time; and others of HTTP.
        message: for the person who sent it.

    Example:
        >>> RequestError(404, "no model named 'x'").code
        'NOT_FOUND'
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.message)

    @property
    def code(self) -> str:
        """The name of the gRPC status code that corresponds."""
        return _GRPC[self.status]
