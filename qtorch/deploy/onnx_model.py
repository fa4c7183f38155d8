"""Models as ONNX, and their runner, ONNX Runtime."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from qtorch.deploy.artefact_file import Model, about, write
from qtorch.deploy.exported import exported_program
from qtorch.deploy.extras import needed
from qtorch.deploy.program import program_of
from qtorch.deploy.signature import Signature, TensorSpec
from qtorch.errors import ArgumentError

KIND = "onnx"
AXES = {"B": "batch", "C": "context", "N": "assets", "K": "neighbours"}


def to_onnx(
    model: Model,
    path: str | Path,
    *,
    density: bool = False,
    opset: int = 20,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes a model as an ONNX graph with batch, context and assets free, which ONNX Runtime and others run.

    Inputs and outputs have the signature's names, and their meanings, with units and what a mask's True stands for, as
    doc strings. The graph's metadata hold the whole description too. Numbers differ from the model's by rounding, to
    1e-5 of their size. What joint densities have and ONNX has not, such as roots of matrices and quantiles of the
    normal law, is written out in its operators.

    Args:
        model: in evaluation mode afterwards.
        path: of the file; one that is there is replaced.
        density: as of `program_of`.
        opset: version of ONNX's operators.
        metadata: plain values to keep beside the model.

    Raises:
        ImportError: the extra ``onnx`` is not installed.
        ValueError: the model has no such program, or ONNX has no such operation, such as the Bessel functions of a
            NormalInverseGaussian's density.
        TypeError: a part of the model or of the metadata is not of plain values.
    """
    onnx = needed("onnx", "onnx", "to_onnx")
    needed("onnxscript", "onnx", "to_onnx")
    from qtorch.deploy.onnx_translations import TRANSLATIONS

    program = program_of(model, density=density)
    signature = program.signature
    exported = _contiguous(exported_program(program))
    with _no_word_of_torchvision(), _plain_refusals():
        made = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=opset,
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert made is not None
    description = about(model, program, KIND, metadata)
    graph = made.model_proto
    _say(graph, signature, description)
    onnx.checker.check_model(graph, full_check=True)
    write(path, description, lambda file: file.write_bytes(graph.SerializeToString(deterministic=True)))


def runner(content: bytes, description: Mapping[str, Any]) -> Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """The function of a graph, by ONNX Runtime on the CPU, with as many threads as torch has."""
    ort = needed("onnxruntime", "onnx", "an artefact of kind onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3  # errors
    try:
        graph = needed("onnx", "onnx", "an artefact of kind onnx").load_model_from_string(content)
        refuse_other_files(graph)
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except ArgumentError:
        raise
    except Exception as error:
        raise ArgumentError(f"no graph that ONNX Runtime takes: {str(error)[:300]}") from error
    signature = Signature.from_dict(description["signature"])
    _refuse_other_signature(session, signature)
    names, asked = ([spec.name for spec in side] for side in (signature.inputs, signature.outputs))
    taken = {each.name for each in session.get_inputs()}  # those that change nothing are not in the graph

    def run(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True) if name in taken}
        return tuple(map(torch.from_numpy, session.run(asked, given)))

    return run


def refuse_other_files(message: Any) -> None:
    """Refuses numbers that stand in files of their own, whose SHA-256 nobody has and which may be any on this machine.

    Raises:
        ValueError: a tensor, wherever it is in the graph, names one.
    """
    if message.DESCRIPTOR.name == "TensorProto" and (message.external_data or message.data_location):
        raise ArgumentError(f"the numbers of {message.name!r} are in another file: give a graph that holds its own")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if hasattr(value, "DESCRIPTOR") else value:
                refuse_other_files(each)


def _refuse_other_signature(session: Any, signature: Signature) -> None:
    """Refuses a graph whose inputs and outputs are not those of its sidecar.

    Raises:
        ValueError: a name, or its number of axes, is another.
    """
    for side, specs in ((session.get_inputs(), signature.inputs), (session.get_outputs(), signature.outputs)):
        axes = {spec.name: len(spec.axes) for spec in specs}
        for each in side:
            if axes.get(each.name) != len(each.shape):
                raise ArgumentError(f"the graph has {each.name!r} of {len(each.shape)} axes, which its sidecar has not")
    missing = {spec.name for spec in signature.outputs} - {each.name for each in session.get_outputs()}
    if missing:
        raise ArgumentError(f"the graph lacks the outputs {sorted(missing)} of its sidecar")


@contextmanager
def _no_word_of_torchvision() -> Iterator[None]:
    """Without the exporter's warnings that torchvision, which no graph of ours needs, is not installed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")

    def others(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


@contextmanager
def _plain_refusals() -> Iterator[None]:
    """With an operation that ONNX has not told in a sentence.

    Raises:
        ValueError: there is one.
    """
    try:
        yield
    except torch.onnx.errors.OnnxExporterError as error:
        found = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(error))
        if found is None:
            raise
        raise ArgumentError(
            f"ONNX has no {found[1]}, which this model computes: take deploy.export or deploy.package for it."
        ) from error


def _contiguous(exported: ExportedProgram) -> ExportedProgram:
    """Copies before axes are joined, of which no trace is left in ONNX.

    The exporter first joins axes in place, where the memory of attention's outputs lets it, and then gives them another
    layout, by which that cannot be done.
    """
    aten = torch.ops.aten
    graph = exported.graph
    for node in graph.find_nodes(op="call_function", target=aten.flatten.using_ints):
        joined = node.args[0]
        with graph.inserting_before(node):
            copy = graph.call_function(aten.clone.default, (joined,), {"memory_format": torch.contiguous_format})
        copy.meta = dict(joined.meta)
        node.replace_input_with(joined, copy)
    exported.graph_module.recompile()
    return exported


def _say(graph: Any, signature: Signature, description: Mapping[str, Any]) -> None:
    """Gives a graph the signature's axes and meanings, and the description."""
    for values, specs in ((graph.graph.input, signature.inputs), (graph.graph.output, signature.outputs)):
        by_name = {spec.name: spec for spec in specs}
        for value in values:
            _describe(value, by_name[value.name])
    del graph.graph.value_info[:]  # of the exporter's names of axes; readers infer them
    model = description["model"]
    windows = model.get("windows", {})
    for key, said in {
        "signature": description["signature"],
        "model": model,
        "windows": windows,
        "horizons": windows.get("horizons"),
        "units": {spec.name: spec.meaning for spec in (*signature.inputs, *signature.outputs)},
        "metadata": description["metadata"],
        "versions": description["versions"],
    }.items():
        graph.metadata_props.add(key=f"qtorch.{key}", value=json.dumps(said, sort_keys=True))
    graph.doc_string = f"{model['kind']} of qtorch; see the metadata for what its tensors mean."


def _describe(value: Any, spec: TensorSpec) -> None:
    value.doc_string = spec.meaning
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for axis in spec.axes:
        if isinstance(axis, int):
            shape.dim.add(dim_value=axis)
        else:
            shape.dim.add(dim_param=AXES.get(axis, axis))
