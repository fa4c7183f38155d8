"""What requests say in their parameters, and which of a model's outputs they want."""

from typing import Any

from qtorch.deploy.server.protocol import InferRequest, RequestError
from qtorch.deploy.server.protocol.tensors import shown

LEVELS = (0.975, 0.99)
_MOST_LEVELS = 32
# Of the protocol and its clients, which ask for nothing that changes a number.
_OF_PROTOCOL = ("binary_data_output", "priority", "sequence_end", "sequence_id", "sequence_start", "timeout")
_RESERVED = "triton_"


def require_known(parameters: dict[str, Any], *own: str) -> None:
    """Refuses parameters that are neither a model's own nor the protocol's, since a typo would ask for the default.

    Raises:
        RequestError: 422, with the first of them.
    """
    for name in parameters:
        if name not in (*own, *_OF_PROTOCOL) and not name.startswith(_RESERVED):
            has = f"It has {', '.join(own)}" if own else "It has none"
            raise RequestError(422, f"the model has no parameter {shown(name)}. {has}.")


def levels_of(parameters: dict[str, Any]) -> tuple[float, ...]:
    """The confidences of the parameter ``levels``: a number, a list, or text such as "0.975,0.99", as gRPC can hold.

    Raises:
        RequestError: 422, one is no number inside (0, 1), or there are none or too many.
    """
    given = parameters.get("levels", LEVELS)
    if isinstance(given, str):
        try:
            values: list[Any] = [float(part) for part in given.split(",")]
        except ValueError as error:
            raise RequestError(422, f"levels is {shown(given)}. Give numbers, such as 0.975,0.99.") from error
    else:
        values = list(given) if isinstance(given, list | tuple) else [given]
    if not 1 <= len(values) <= _MOST_LEVELS:
        raise RequestError(422, f"levels has {len(values)} numbers. Give between 1 and {_MOST_LEVELS}.")
    for level in values:
        if type(level) is not float or not 0 < level < 1:
            raise RequestError(422, f"levels holds {shown(level)}. Give confidences inside (0, 1), such as 0.99.")
    return tuple(values)


def text_of_levels(levels: tuple[float, ...]) -> str:
    """The form of text of `levels_of`, which the parameters of a response can hold.

    Example:
        >>> text_of_levels((0.975, 0.99))
        '0.975,0.99'
    """
    return ",".join(map(repr, levels))


def wanted_outputs(request: InferRequest, there: tuple[str, ...], default: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the outputs that a request wants, in its order.

    Raises:
        RequestError: 422, the model has no such output.
    """
    if request.outputs is None:
        return default
    names = tuple(output.name for output in request.outputs)
    if unknown := [name for name in names if name not in there]:
        raise RequestError(422, f"the model has no output {shown(unknown[0])}. It has {', '.join(there)}.")
    return names
