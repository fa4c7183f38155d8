"""What is checked of every request, whichever wire it came by."""

from collections.abc import Sequence
from typing import Any

from qtorch.deploy.server.protocol.bodies import first_repeated
from qtorch.deploy.server.protocol.errors import RequestError
from qtorch.deploy.server.protocol.messages import InferInput, InferRequest, RequestedOutput
from qtorch.deploy.server.protocol.tensors import shown


def request_of(
    model: str,
    version: str | None,
    id: str | None,
    parameters: dict[str, Any],
    inputs: Sequence[InferInput],
    outputs: list[RequestedOutput] | None,
    binary: bool = False,
) -> InferRequest:
    """A request of its parts.

    Raises:
        RequestError: 400, there is no input, or an input or output is named twice.
    """
    if not inputs:
        raise RequestError(400, "inputs is empty. Give the model's tensors; its metadata list them.")
    for kind, names in (("inputs", [x.name for x in inputs]), ("outputs", [x.name for x in outputs or ()])):
        twice = first_repeated(names)
        if twice is not None:
            raise RequestError(400, f"{kind}: {shown(twice)} is named twice. Name it once.")
    tensors = {tensor.name: tensor.data for tensor in inputs}
    # An empty list asks for nothing in particular, as none does.
    return InferRequest(model, version, id, parameters, tensors, outputs or None, binary)
