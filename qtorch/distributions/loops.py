"""Loops whose length depends on the data, in eager mode and under torch.compile."""

from collections.abc import Callable

import torch
from torch import Tensor

from qtorch.errors import ArgumentError

State = tuple[Tensor, ...]
Step = int | float | Tensor  # a number in eager mode, a scalar tensor in a compiled loop
_STRIDE = 4  # steps to a turn of a compiled loop; dozens take minutes to compile, with one a step pays for a turn


def repeat_while(unfinished: Callable[..., Tensor], step: Callable[..., State], state: State) -> State:
    """Repeats `step` on a state while `unfinished` (a boolean scalar of it) holds, without a graph break."""
    if torch.compiler.is_compiling():
        _donate_nothing()
        return torch.while_loop(unfinished, step, state)
    while unfinished(*state):
        state = step(*state)
    return state


def count_down(step: Callable[..., State], first: int, state: State) -> State:
    """`state = step(m, *state)` for m = first .. 0, some steps to a turn of the loop in a compiled graph.

    Raises:
        ValueError: the number of steps is no multiple of that of a turn.
    """
    if (first + 1) % _STRIDE:
        raise ArgumentError(f"{first + 1} steps are no multiple of {_STRIDE}.")
    if not torch.compiler.is_compiling():
        for m in range(first, -1, -1):
            state = step(float(m), *state)  # an operation converts an integer factor anew each time
        return state

    def turn(m: Tensor, *state: Tensor) -> State:
        for k in range(_STRIDE):
            state = step(m - k, *state)
        return m - _STRIDE, *state

    _donate_nothing()
    start = torch.full((), first, dtype=torch.float64, device=state[0].device)
    return torch.while_loop(lambda m, *_: m >= 0, turn, (start, *state))[1:]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _donate_nothing() -> bool:
    """Keeps what a compiled forward pass has saved from being overwritten in its backward pass, from here on.

    With such donated buffers torch 2.13 gives wrong gradients where several loops stand in a graph: that of the tail
    mean of `SplicedTails` in the degrees of freedom was of the size of 1e99. It runs when a loop is traced, before the
    backward pass is compiled, and costs the memory of what is saved until that has ended.
    """
    torch._functorch.config.donated_buffer = False
    return True


def can_branch(x: Tensor) -> bool:
    """Whether Python may look at the values: on a CPU, outside compiled code, torch.func and recorded gradients."""
    wrapped = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x)
    return not (wrapped or x.is_cuda or torch.is_grad_enabled())


def in_pieces(function: Callable[..., Tensor], *arguments: Tensor, size: int = 1 << 15) -> Tensor:
    """Applies an elementwise function of tensors that broadcast, on a CPU to flat pieces that stay in its cache."""
    # A copy: operations on broadcast dimensions are several times slower, and in a compiled kernel they aren't vectors.
    stack = torch.stack(torch.broadcast_tensors(*arguments))
    if not can_branch(stack):
        return function(*stack.unbind())
    pieces = stack.reshape(len(arguments), -1).split(size, dim=1)
    return torch.cat([function(*piece.unbind()) for piece in pieces]).reshape(stack.shape[1:])


def add(x: Tensor, y: Tensor, factor: Step) -> Tensor:
    """The sum x + factor y, in one operation where the factor is a number."""
    return x + factor * y if isinstance(factor, Tensor) else torch.add(x, y, alpha=factor)


def add_product(x: Tensor, y: Tensor, z: Tensor, factor: Step) -> Tensor:
    """The sum x + factor y z, in one operation where the factor is a number."""
    return x + factor * (y * z) if isinstance(factor, Tensor) else torch.addcmul(x, y, z, value=factor)
