"""What a request asks and a response tells, whichever wire it came by."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Limits:
    """What a request may be at most.

    Attributes:
        max_bytes: of its body, and of what that decompresses to.
        max_batch: windows, the first axis of its tensors.
        max_elements: of one tensor.
        timeout_s: seconds until it is answered.
    """

    max_bytes: int = 64 << 20
    max_batch: int = 1024
    max_elements: int = 16_000_000
    timeout_s: float = 30.0


@dataclass(frozen=True, eq=False)
class InferInput:
    """A tensor of a request.

    Attributes:
        name: of the tensor.
        datatype: of the protocol, such as FP32.
        shape: of the data.
        data: read-only.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: np.ndarray


@dataclass(frozen=True)
class RequestedOutput:
    """An output that a request names.

    Attributes:
        name: of the tensor.
        binary: whether it is wanted as bytes behind the JSON of an HTTP response.
    """

    name: str
    binary: bool = False


@dataclass(frozen=True, eq=False)
class InferRequest:
    """A request, parsed but not yet held against a model.

    Attributes:
        model: name.
        version: None is the model's default.
        id: of the sender, which the response repeats.
        parameters: plain values.
        inputs: tensors by name, read-only.
        outputs: which are wanted; None are the model's default outputs.
        binary: whether outputs are wanted as bytes where none is named.
    """

    model: str
    version: str | None
    id: str | None
    parameters: dict[str, Any]
    inputs: dict[str, np.ndarray]
    outputs: list[RequestedOutput] | None = None
    binary: bool = False


@dataclass(frozen=True, eq=False)
class InferResponse:
    """An answer.

    Attributes:
        model: name.
        version: which computed it.
        id: of the request.
        parameters: plain values: strings, numbers and bools.
        outputs: tensors by name.
    """

    model: str
    version: str
    id: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
