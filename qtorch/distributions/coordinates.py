"""Which coordinates of a joint law are meant: masks of those that are there, positions, and the others."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from qtorch.errors import ArgumentError


def require_event(value: Tensor, name: str, N: int) -> None:
    """Refuses a tensor that does not end in the law's coordinates.

    Raises:
        ValueError: it does not; the message names it.
    """
    if value.shape[-1:] != (N,):
        raise ArgumentError(f"{name} of shape {tuple(value.shape)} must end in the law's N = {N} coordinates.")


def there(mask: Tensor | None, N: int, device: torch.device) -> Bool[Tensor, "... N"]:
    """The mask, or all True if there is none.

    Raises:
        ValueError: its last dimension is not N.
    """
    if mask is None:
        return torch.ones(N, dtype=torch.bool, device=device)
    require_event(mask, "mask", N)
    return mask


def positions(index: Sequence[int] | slice | Tensor, N: int, device: torch.device) -> Int64[Tensor, " n"]:
    """Positions from 0 of what a mask `[N]`, a slice or positions say, in their order.

    Raises:
        ValueError: a mask is not `[N]`, positions are no vector, or one comes twice.
    """
    if isinstance(index, Tensor) and index.dtype == torch.bool and index.shape != (N,):
        raise ArgumentError(
            f"A mask of coordinates must be one vector of N = {N} for the whole batch, not of shape "
            f"{tuple(index.shape)}; take the parts of the batch that have masks of their own."
        )
    places = torch.arange(N, device=device)[index if isinstance(index, slice | Tensor) else list(index)]
    if places.ndim != 1:
        raise ArgumentError(f"Positions of coordinates must be a vector, not of shape {tuple(places.shape)}.")
    if not torch.compiler.is_compiling() and len(places.unique()) < len(places):
        raise ArgumentError("A position comes twice, but a coordinate has one diagonal of its own; give it once.")
    return places


def others(places: Int64[Tensor, " n"], N: int) -> Int64[Tensor, " m"]:
    """The positions that are not among some, in their order; by sorting, because their number is known beforehand."""
    taken = torch.zeros(N, device=places.device).index_fill(0, places, 1.0)
    return torch.argsort(taken, stable=True)[: N - len(places)]


def require_known(value: Tensor, places: Int64[Tensor, " n"]) -> None:
    """Refuses values `[..., n]` to condition on that are not finite.

    Raises:
        ValueError: one is not; the message says how many and the position of the first.
    """
    if torch.compiler.is_compiling() or value.isfinite().all():
        return
    bad = ~value.isfinite()
    raise ArgumentError(
        f"condition needs finite values where they are known; {int(bad.sum())} of {bad.numel()} are not, the "
        f"first at position {int(places[bad.nonzero()[0, -1]])}."
    )
