"""Models as compiled libraries of AOTInductor."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qtorch.deploy.artefact_file import Model, about, write
from qtorch.deploy.exported import exported_program
from qtorch.deploy.program import program_of
from qtorch.errors import ArgumentError

KIND = "aot_inductor"


def package(
    model: Model,
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    density: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes a model as a library that AOTInductor compiled, a ``.pt2`` file, with batch, context and assets free.

    It is made for the processor, or the graphics card, of the machine that compiles it, and runs there without Python's
    share of the work; C++ loads it too. Numbers differ from the model's by rounding, to 1e-5 of their size.

    Args:
        model: in evaluation mode afterwards.
        path: of the file; one that is there is replaced.
        device: on which it will run, such as ``"cuda"``.
        density: as of `program_of`.
        metadata: plain values to keep beside the model.

    Raises:
        ValueError: the model has no such program.
        TypeError: a part of the model or of the metadata is not of plain values.
        RuntimeError: there is no compiler of C++ or no such device.
    """
    program = program_of(model, density=density)
    home = next((parameter.device for parameter in program.parameters()), torch.device("cpu"))
    try:
        exported = exported_program(program.to(device))
        description = about(model, program, KIND, metadata)
    finally:
        program.to(home)

    def make(file: Path) -> None:
        torch._inductor.aoti_compile_and_package(exported, package_path=str(file))

    write(path, description, make)


def runner(content: bytes, description: Mapping[str, Any]) -> Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """The function of a package; it holds code."""
    library = torch._inductor.aoti_load_package(io.BytesIO(content))
    made = library.get_metadata().get("AOTI_DEVICE_KEY")
    if made != description["device"]:
        raise ArgumentError(f"the package is compiled for the device {made}, and not for {description['device']}")
    return lambda tensors: tuple(library(*tensors))
