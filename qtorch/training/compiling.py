"""Networks compiled in place, as training and forecasts ask for it."""

from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from qtorch.errors import ArgumentError


def compile_whole(network: nn.Module) -> None:
    """Compiles a network in place, without a break in its graph and for all sizes of batches, windows and universes.

    Its state's names, copies and what is saved of it stay as they are. Compiled before, it keeps what was compiled.

    Raises:
        ValueError: a part of it walks over trees, whose shape is data.
    """
    trees = [type(part).__name__ for part in network.modules() if getattr(part, "needs_tree", False)]
    if trees:
        raise ArgumentError(
            f"{trees[0]} walks over each date's dendrogram, whose shape is data, and cannot be compiled. Leave out "
            "compile=True."
        )
    if network._compiled_call_impl is None:
        network.compile(fullgraph=True, dynamic=True)


class Compiled(Callback):
    """Compiles the network, not the LightningModule; here, because a process that is spawned gets it uncompiled."""

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Before the first batch."""
        compile_whole(pl_module.network)
