"""What a model answers, looked at before it is sent."""

from torch import Tensor

from qtorch.deploy.server.protocol import RequestError


def require_finite_output(name: str, value: Tensor, usable: Tensor) -> None:
    """Refuses an answer of NaN and infinities where there is a number to be told.

    Args:
        name: of the output.
        value: of windows or decisions in the first axis.
        usable: where there is one; broadcasts against the value.

    Raises:
        RequestError: 422, with the first of them.
    """
    bad = usable.logical_and(~value.isfinite())
    if bad.any():
        at = bad.nonzero()[0].tolist()
        raise RequestError(
            422,
            f"output {name!r}: {value[tuple(at)].item()} at {at}: the model's numbers overflow. An input is far beyond "
            "what it was trained on, or a level nearer to 0 or 1 than float32 tells: check units and levels.",
        )
