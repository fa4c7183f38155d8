"""What requests say in their parameters, and which of a model's outputs they want."""

from typing import Any

from qtorch.deploy.server.protocol import InferRequest, RequestError
from qtorch.deploy.server.protocol.tensors import shown

LEVELS = (0.975, 0.99)
_MOST_LEVELS = 32


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
