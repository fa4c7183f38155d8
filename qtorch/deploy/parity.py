"""How far an artefact's numbers are from its program's, at sizes of the axes that vary."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from qtorch.deploy.program import Program
from qtorch.errors import ArgumentError

Run = Callable[..., tuple[Tensor, ...]]


@torch.no_grad()
def differences(program: Program, run: Run, sizes: Mapping[str, int]) -> tuple[float, float]:
    """The largest difference of any output's number, and the same by the largest size of a number of that output.

    Args:
        program: the reference, in eager mode.
        run: of which the numbers are, such as an `Artefact`'s.
        sizes: of the axes that vary, by their letters.

    Returns:
        The absolute and the relative difference; infinite where a number, or a shape, is there and not here.
    """
    inputs = program.example(**sizes)
    absolute, relative = 0.0, 0.0
    for ours, theirs in zip(program(*inputs), run(*inputs), strict=True):
        same = ours.shape == theirs.shape and ours.dtype == theirs.dtype
        if not same or not torch.equal(_ends(ours), _ends(theirs)):
            return torch.inf, torch.inf
        ours, theirs = (torch.where(value.isfinite(), value, 0).double() for value in (ours, theirs))
        largest = float((ours - theirs).abs().max())
        absolute = max(absolute, largest)
        relative = max(relative, largest / max(float(ours.abs().max()), torch.finfo(torch.float32).tiny))
    return absolute, relative


def _ends(value: Tensor) -> Tensor:
    """Where numbers are not finite, and what stands there: 1 and -1 for the infinities, 2 for NaN."""
    return torch.where(value.isnan(), 2, torch.where(value.isinf(), value.sign(), 0))


def hold(program: Program, run: Run, sizes: Iterable[Mapping[str, int]], within: float, cause: str) -> None:
    """Refuses what does not compute a program's numbers at all sizes.

    Args:
        program: the reference.
        run: what is held against it.
        sizes: of the axes that vary, several times.
        within: the largest relative difference.
        cause: why it may differ, and what to do, for the message.

    Raises:
        ValueError: at some sizes it differs, or does not run.
    """
    for given in sizes:
        where = ", ".join(f"{letter}={size}" for letter, size in given.items())
        try:
            _, relative = differences(program, run, given)
        except RuntimeError as error:
            raise ArgumentError(f"it does not run at {where} ({str(error).strip()[:300]}): {cause}") from error
        if relative > within:
            raise ArgumentError(f"at {where} it differs from eager mode by {relative:.0e} of its numbers: {cause}")


def probes(program: Program, most: Mapping[str, int]) -> list[dict[str, int]]:
    """Sizes to try: the least, the largest of each axis with small others, and two between.

    Args:
        program: whose axes.
        most: the largest size of each axis.
    """
    ones, twos = (dict.fromkeys(program.letters, size) for size in (1, 2))
    some: tuple[dict[str, int], ...] = ({}, ones, twos, {"B": 4, "C": 21, "N": 11})
    default = dict(zip(program.letters, (2, 6, 4, 3), strict=False))
    return [{letter: min((default | one)[letter], most[letter]) for letter in program.letters} for one in some]
