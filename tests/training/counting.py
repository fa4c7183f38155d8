"""What torch.compile makes of networks, without a compiler of C++."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def counted() -> Iterator[list[torch.fx.GraphModule]]:
    """Gathers the graphs that networks compiled in here are made into, then and later; they run as they are."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, example: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    original = torch.compile
    torch.compiler.reset()
    torch.compile = lambda *args, **options: original(*args, **options | {"backend": backend})  # type: ignore[assignment]
    try:
        yield graphs
    finally:
        torch.compile = original
