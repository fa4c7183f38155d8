"""Models as traces of TorchScript, which torch has deprecated."""

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qtorch.deploy.artefact_file import Model, about, write
from qtorch.deploy.parity import hold, probes
from qtorch.deploy.program import Program, program_of

KIND = "torchscript"
MOST = {"B": 64, "C": 64, "N": 16, "K": 8}  # of the sizes at which a trace is tried


def to_torchscript(
    model: Model, path: str | Path, *, density: bool = False, metadata: Mapping[str, Any] | None = None
) -> None:
    """Writes a model as a trace of TorchScript, a ``.pt`` file, for hosts that load nothing newer.

    torch has deprecated TorchScript and may remove it: nothing is promised of it here either. `export` writes what
    replaces it. A trace repeats what was done once; so before it is written it is held against the model at sizes
    other than those of the trace, and refused where sizes or branches were baked in.

    Args:
        model: in evaluation mode afterwards.
        path: of the file; one that is there is replaced.
        density: as of `program_of`.
        metadata: plain values to keep beside the model.

    Raises:
        ValueError: the model has no such program, or its trace does not hold at other sizes.
        TypeError: a part of the model or of the metadata is not of plain values.

    Warns:
        DeprecationWarning: always.
    """
    warnings.warn(
        "torch has deprecated TorchScript; deploy.export writes what replaces it.", DeprecationWarning, stacklevel=2
    )
    program = program_of(model, density=density)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of which ours tells
        # What it warns of is tried below.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        traced = torch.jit.trace(program, program.example(), check_trace=False)
    sizes = probes(program, MOST)
    if "C" in program.letters:  # a branch on the length, as of an encoder that sees so many sessions, shows beyond it
        sizes.append(sizes[0] | {"C": 2 * _longest(program) + 3})
    cause = "the trace has sizes in it. Use deploy.export."
    hold(program, lambda *tensors: tuple(traced(*tensors)), sizes, 1e-5, cause)
    write(path, about(model, program, KIND, metadata), lambda file: torch.jit.save(traced, file))


def _longest(program: Program) -> int:
    contexts = (getattr(module, "context", None) for module in program.modules())
    return max((context for context in contexts if isinstance(context, int)), default=0)


def runner(content: bytes, description: Mapping[str, Any]) -> Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """The function of a trace; it holds code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(io.BytesIO(content), map_location=description["device"])
    return lambda tensors: tuple(module(*tensors))
