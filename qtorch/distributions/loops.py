"""Loops whose length depends on the data, in eager mode and under torch.compile."""

from collections.abc import Callable

import torch
from torch import Tensor

State = tuple[Tensor, ...]
Step = int | float | Tensor  # a number in eager mode, a scalar tensor in a compiled loop


def repeat_while(unfinished: Callable[..., Tensor], step: Callable[..., State], state: State) -> State:
    """Repeats `step` on a state while `unfinished` (a boolean scalar of it) holds, without a graph break."""
    if torch.compiler.is_compiling():
        return torch.while_loop(unfinished, step, state)
    while unfinished(*state):
        state = step(*state)
    return state


def count_down(step: Callable[..., State], first: int, state: State, stride: int) -> State:
    """`state = step(m, *state)` for m = first .. 0, in a compiled graph `stride` steps to a turn of a loop.

    Dozens of steps unrolled into one kernel take minutes to compile, one step a turn pays for the turn.
    """
    if not torch.compiler.is_compiling():
        for m in range(first, -1, -1):
            state = step(m, *state)
        return state
    if (first + 1) % stride:
        raise ValueError(f"{first + 1} steps are no multiple of stride={stride}.")

    def turn(m: Tensor, *state: Tensor) -> State:
        for k in range(stride):
            state = step(m - k, *state)
        return m - stride, *state

    start = torch.full((), first, dtype=torch.float64, device=state[0].device)
    return torch.while_loop(lambda m, *_: m >= 0, turn, (start, *state))[1:]


def add(x: Tensor, y: Tensor, factor: Step) -> Tensor:
    """The sum x + factor y, in one operation where the factor is a number."""
    return x + factor * y if isinstance(factor, Tensor) else torch.add(x, y, alpha=factor)
