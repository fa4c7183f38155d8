"""A saved allocator, which runs and jobs name by its path."""

from collections.abc import Iterable
from pathlib import Path

from jaxtyping import Float, Float64
from torch import Tensor

from qtorch.data import Panel
from qtorch.deploy.bundle import load
from qtorch.training import Allocator


class SavedAllocator:
    """Lets `WalkForward` and the nightly job ask an `Allocator` that `qtorch.deploy.save` wrote.

    While nothing is held, its weights are those without holdings, as those of `Walked`, which is the faster for a long
    run.

    Args:
        path: of the bundle.
        allow: packages beside qtorch whose classes and functions it may name.

    Attributes:
        metadata: saved beside the model.

    Raises:
        BundleError: it cannot be trusted or used, or is no allocator's.
    """

    def __init__(self, path: str | Path, allow: Iterable[str] = ()) -> None:
        self.path = Path(path)
        self.allocator, self.metadata = load(self.path, Allocator, allow=allow)

    def __call__(self, panel: Panel, row: int, holdings: Float64[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Weights on the panel's last row.

        Raises:
            DataError: the universe is empty.
            ValueError: no weights keep to the allocator's constraints.
        """
        held = holdings.unsqueeze(0) if holdings.any() else None
        known = self.allocator.source(panel).at([len(panel.dates) - 1])
        return self.allocator.decide(known, held)[0].to(holdings.device)
