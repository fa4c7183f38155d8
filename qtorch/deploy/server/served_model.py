"""A saved model that answers requests."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from qtorch.deploy.server.protocol import InferRequest, InferResponse, Limits, RequestError


class ServedModel:
    """A saved forecaster or allocator, whose name and version are the last two parts of its path.

    Args:
        path: of the bundle, as of `qtorch.deploy.save`.
        allow: packages beside qtorch whose classes and functions it may name.
        limits: what a request may be at most.

    Raises:
        BundleError: it cannot be trusted or used.
    """

    def __init__(self, path: str | Path, allow: Iterable[str] = (), limits: Limits | None = None) -> None:
        self.path = Path(path)
        self.limits = Limits() if limits is None else limits
        self.name, self.version = self.path.parent.name, self.path.name

    def metadata(self, versions: Sequence[str] = ()) -> dict[str, Any]:
        """As the protocol tells it: name, versions, platform, inputs, outputs, and parameters.

        Args:
            versions: that are ready; its own by default.
        """
        raise NotImplementedError

    def validate(self, request: InferRequest) -> None:
        """Holds a request against the model.

        Raises:
            RequestError: 4xx, it is not what the model takes.
        """
        raise NotImplementedError

    def run(self, requests: Sequence[InferRequest]) -> list[InferResponse | RequestError]:
        """Answers requests together, each as if it were alone; a refusal harms no other.

        Args:
            requests: of this model, not validated yet.
        """
        raise NotImplementedError
