"""Models as programs of ExecuTorch, for phones and embedded devices."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from qtorch.deploy.artefact_file import Model, about, write
from qtorch.deploy.edge_program import bounds_of, edge_program, rewritten
from qtorch.deploy.extras import needed
from qtorch.deploy.parity import hold, probes
from qtorch.deploy.program import program_of
from qtorch.errors import ArgumentError

KIND = "executorch"
Run = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


def to_executorch(
    model: Model,
    path: str | Path,
    *,
    most: Mapping[str, int] | None = None,
    density: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes a model as a program of ExecuTorch, a ``.pte`` file, by XNNPACK's kernels where it has them.

    ExecuTorch is the successor of PyTorch Mobile. Its memory is laid out beforehand, so every axis has an upper bound,
    and the file's memory grows with the product of them. Matrix products, activations and norms run on XNNPACK;
    indexing, sorting, sums along time and masks on ExecuTorch's portable kernels, one element at a time: their names
    are in the sidecar's ``options["portable"]``. Before it is written the program runs in ExecuTorch's own runtime
    here, and is refused if it differs from the model by more than 1e-5 of its numbers.

    Args:
        model: in evaluation mode afterwards.
        path: of the file; one that is there is replaced.
        most: the largest sizes of axes by their letters, such as ``{"B": 1024, "N": 500}``; by default 64 windows, 256
            sessions, 64 assets, 16 neighbours.
        density: as of `program_of`.
        metadata: plain values to keep beside the model.

    Raises:
        ValueError: the model has no such program, an operator of it has no kernel, or it does not hold.
        TypeError: a part of the model or of the metadata is not of plain values.
        ImportError: ExecuTorch is not installed.
    """
    needed("executorch", "executorch", "ExecuTorch")
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    program = program_of(model, density=density)
    bounds = bounds_of(program, most)
    exported = edge_program(program, bounds).run_decompositions(rewritten())
    if any(getattr(node.target, "namespace", "") == "qtorch" for node in exported.graph.nodes):
        raise ArgumentError(
            "ExecuTorch has no kernel of recurrent layers, whose loop over sessions is an operation of its own in a "
            f"graph. Take another encoder, such as Transformer. {_INSTEAD}"
        )
    # Its check of the operators compares sizes and so fixes them; what it would find is found below in the runtime.
    config = EdgeCompileConfig(_check_ir_validity=False)
    lowered = to_edge_transform_and_lower(exported, partitioner=[_partitioner()], compile_config=config)
    try:
        made = lowered.to_executorch()
    except RuntimeError as error:
        raise ArgumentError(f"ExecuTorch does not take this model ({str(error).strip()[:300]}). {_INSTEAD}") from error
    content = made.buffer
    operators = sorted({f"{o.name}.{o.overload}" for o in made.executorch_program.execution_plan[0].operators})
    if missing := [name for name in operators if name not in _kernels()]:
        raise ArgumentError(f"ExecuTorch has no kernel of {', '.join(missing)}. {_INSTEAD}")
    description = about(model, program, KIND, metadata, most=bounds, portable=operators)
    cause = f"ExecuTorch does not compute this model as it is. {_INSTEAD}"
    run = runner(content, description)
    hold(program, lambda *tensors: run(tensors), probes(program, bounds), 1e-5, cause)
    write(path, description, lambda file: file.write_bytes(content))


def runner(content: bytes, description: Mapping[str, Any]) -> Run:
    """The function of a program, in ExecuTorch's runtime; it is for one thread at a time.

    Raises:
        ImportError: ExecuTorch is not installed.
    """
    needed("executorch", "executorch", "ExecuTorch")
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(content)
    method = program.load_method("forward")
    most: dict[str, int] = description["options"]["most"]
    axes = [spec["axes"] for spec in description["signature"]["inputs"]]

    def run(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for names, tensor in zip(axes, tensors, strict=True):
            for letter, size in zip(names, tensor.shape, strict=True):
                if isinstance(letter, str) and size > most[letter]:
                    raise ArgumentError(
                        f"the axis {letter!r} has {size}, but this program was made for {most[letter]} at most: give "
                        "less at once, or write it with a larger bound in most=."
                    )
        # Outputs lie in the program's own memory, which the next call writes to.
        outputs = method.execute([tensor.contiguous() for tensor in tensors])
        return tuple(output.clone() for output in outputs)

    run.program = program  # type: ignore[attr-defined]  # owns the bytes that the method reads
    return run


_INSTEAD = "Use deploy.export or deploy.to_onnx."


def _partitioner() -> Any:
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    # XNNPACK reshapes tensors of one free axis alone, but takes such steps of several free axes and fails later.
    reshaping = {"UnsqueezeCopyConfig", "ViewCopyConfig"}
    return XnnpackPartitioner(configs=[kind for kind in ALL_PARTITIONER_CONFIGS if kind.__name__ not in reshaping])


def _kernels() -> set[str]:
    from executorch.runtime import Runtime

    names: set[str] = Runtime.get().operator_registry.operator_names
    return names
