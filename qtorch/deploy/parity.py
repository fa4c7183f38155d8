"""How far an artefact's numbers are from its program's, at sizes of the axes that vary."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from qtorch.deploy.program import Program
from qtorch.errors import ArgumentError

Run = Callable[..., tuple[Tensor, ...]]


# What stands where these are False must change nothing.
MASKS = {"inputs": "mask", "outcomes": "known", "weights": "present", "neighbours": "present", "kinds": "present"}


@torch.no_grad()
def differences(program: Program, run: Run, sizes: Mapping[str, int]) -> tuple[float, float]:
    """The largest difference of any output's number, and the same by the largest size of a number of that output.

    Args:
        program: the reference, in eager mode.
        run: of which the numbers are, such as an `Artefact`'s.
        sizes: of the axes that vary, by their letters.

    Returns:
        The absolute and the relative difference, over all `cases`; infinite where a number, or a shape, is there and
        not here.
    """
    absolute, relative = 0.0, 0.0
    for inputs in cases(program, sizes):
        for ours, theirs in zip(program(*inputs), run(*inputs), strict=True):
            same = ours.shape == theirs.shape and ours.dtype == theirs.dtype
            if not same or not torch.equal(_ends(ours), _ends(theirs)):
                return torch.inf, torch.inf
            ours, theirs = (torch.where(value.isfinite(), value, 0).double() for value in (ours, theirs))
            largest = float((ours - theirs).abs().max())
            absolute = max(absolute, largest)
            relative = max(relative, largest / max(float(ours.abs().max()), torch.finfo(torch.float32).tiny))
    return absolute, relative


def cases(program: Program, sizes: Mapping[str, int]) -> list[tuple[Tensor, ...]]:
    """Inputs of given sizes: the example; with masks of which some end in a hole and some are empty; and dirt there.

    The dirt, where a mask is False, is NaN, then infinity, of whole numbers -1 and one beyond any node.
    """
    names = [spec.name for spec in program.signature.inputs]
    example = program.example(**sizes)
    given = dict(zip(names, example, strict=True))
    masks = {name: mask for name, mask in MASKS.items() if name in given}
    if not masks:
        return [example]
    (axes,) = (spec.axes for spec in program.signature.inputs if spec.name == "mask")
    sessions = next(axis for axis, letter in enumerate(axes) if letter == "C" or isinstance(letter, int))
    rows = given["mask"].movedim(sessions, -1).clone(memory_format=torch.contiguous_format)
    each = rows.view(-1, rows.shape[-1])
    each[::3, -1], each[1::3] = False, False
    given["mask"] = rows.movedim(-1, sessions).contiguous()
    if "known" in given:
        given["known"] = torch.logical_and(given["known"], rows[..., -1].unsqueeze(1))
    dirty = []
    for number, whole in ((torch.nan, -1), (torch.inf, 1 << 31)):
        soiled = dict(given)
        for name, mask in masks.items():
            value = given[name]
            there = given[mask] if value.ndim == given[mask].ndim else given[mask].unsqueeze(-1)
            soiled[name] = torch.where(there, value, number if value.is_floating_point() else whole)
        dirty.append(tuple(soiled.values()))
    return [example, tuple(given.values()), *dirty]


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


def probes(program: Program, most: Mapping[str, int] | None = None) -> list[dict[str, int]]:
    """Sizes to try: small ones, ones, twos, and larger ones of which each axis has the largest once.

    Args:
        program: whose axes.
        most: the largest size of each axis, if there is one.
    """
    some: tuple[dict[str, int], ...] = (
        {},
        dict.fromkeys(program.letters, 1),
        dict.fromkeys(program.letters, 2),
        {"B": 4, "C": 21, "N": 11, "K": 5},
        {"B": 7, "C": 2, "N": 23, "K": 1},
    )
    default = {"B": 2, "C": 6, "N": 4, "K": 3}
    return [
        {letter: min((default | one)[letter], (most or default | one)[letter]) for letter in program.letters}
        for one in some
    ]
