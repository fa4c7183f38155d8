"""Loops whose length depends on the data, in eager mode and under torch.compile."""

from collections.abc import Callable

import torch
from torch import Tensor

State = tuple[Tensor, ...]


def repeat_while(unfinished: Callable[..., Tensor], step: Callable[..., State], state: State) -> State:
    """Repeats `step` on a state while `unfinished` (a boolean scalar of it) holds, without a graph break."""
    if torch.compiler.is_compiling():
        return torch.while_loop(unfinished, step, state)
    while unfinished(*state):
        state = step(*state)
    return state
