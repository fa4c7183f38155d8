"""Model repositories of NVIDIA's Triton Inference Server."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qtorch.deploy.artefact_file import ArtefactError, Model, about, content_of, describe_artefact, write
from qtorch.deploy.extras import needed
from qtorch.deploy.onnx_model import KIND, refuse_other_files, to_onnx
from qtorch.deploy.program import program_of
from qtorch.deploy.signature import Signature, TensorSpec
from qtorch.deploy.text_format import parsed_text, with_setting
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError

_SIDES = ("inputs", "outputs")
_TYPES = {"bool": "TYPE_BOOL", "float32": "TYPE_FP32", "float64": "TYPE_FP64", "int64": "TYPE_INT64"}


def to_triton(
    model: Model | str | Path,
    folder: str | Path,
    name: str,
    version: int = 1,
    *,
    max_batch: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a version of a model into a repository that NVIDIA Triton serves by its ONNX Runtime backend.

    That is ``<folder>/<name>/config.pbtxt`` and ``<folder>/<name>/<version>/model.onnx``. Triton serves all versions
    that are there, and joins requests of equal shapes to batches. The configuration is written with the first version,
    and then is yours: settings that you add to it, such as instance groups, stay. A later version must mean the same:
    the same inputs and outputs, with their units and masks, of the same windows.

    Args:
        model: a model, or the path of an artefact that `to_onnx` wrote.
        folder: the repository, made if needed.
        name: of the model in it: letters, digits, ``-``, ``_`` and ``.``.
        version: a number from 1; one that is there is replaced.
        max_batch: windows that are computed together at most; by default 64, or as the configuration says.
        metadata: as of `to_onnx`, of a model.

    Returns:
        The model's folder.

    Raises:
        ValueError: a name, version or batch that Triton does not take, inputs or outputs that mean something else than
            those of the versions that are there, or a configuration that is not readable.
        ArtefactError: the path holds no artefact of ONNX, or the sidecar of a version is missing or damaged.
        ImportError: the extra ``onnx`` is not installed.
    """
    safe = re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII) is not None
    require(safe, "name", name, "letters, digits, '-', '_' and '.' alone, since it names a folder")
    require(version >= 1, "version", version, "give 1 or more")
    require(max_batch is None or max_batch >= 1, "max_batch", max_batch, "give 1 or more")
    home = Path(folder) / name
    file, config = home / str(version) / "model.onnx", home / "config.pbtxt"
    if isinstance(model, str | Path):
        description = describe_artefact(model)
        if description["kind"] != KIND:
            raise ArtefactError(f"{model}: of kind {description['kind']}, but Triton is given ONNX. Give to_onnx's.")
        content = content_of(model, description)
        refuse_other_files(needed("onnx", "onnx", "to_triton").load_model_from_string(content))
        text = _configuration(config, name, description, max_batch)
        write(file, description, lambda part: part.write_bytes(content))
    else:
        text = _configuration(config, name, about(model, program_of(model), KIND), max_batch)
        to_onnx(model, file, metadata=metadata)
    part = config.with_name(f".part.{config.name}")
    part.write_text(text)
    os.replace(part, config)
    return home


def triton_config(name: str, signature: Signature, max_batch: int = 64) -> str:
    """The text of ``config.pbtxt``: types and shapes of inputs and outputs after the batch's axis, -1 where they vary.

    Raises:
        ValueError: an input or output does not begin with the batch's axis.
    """
    blocks = [
        f"name: {json.dumps(name)}",
        'platform: "onnxruntime_onnx"',
        'default_model_filename: "model.onnx"',
        f"max_batch_size: {max_batch}",
        "dynamic_batching { }",
        "version_policy { all { } }",
    ]
    for side in ("input", "output"):
        for spec in getattr(signature, f"{side}s"):
            blocks.append(f"{side} {{\n{_tensor(spec)}}}")
    return "\n".join(blocks) + "\n"


def _tensor(spec: TensorSpec) -> str:
    require(spec.axes[:1] == ("B",), spec.name, spec.axes, "Triton wants the batch's axis first")
    dims = [-1 if isinstance(axis, str) else axis for axis in spec.axes[1:]]
    # A tensor of one number a window has no axis left, which Triton is told as one that is taken away.
    shape = f"dims: [{', '.join(map(str, dims))}]" if dims else "dims: [1]\n  reshape { shape: [] }"
    require(
        spec.dtype in _TYPES,
        spec.name,
        spec.dtype,
        f"Triton is given no such type here: give one of {', '.join(_TYPES)}",
    )
    comments = "".join(f"  # {line}\n" for line in spec.meaning.splitlines())
    return f"{comments}  name: {json.dumps(spec.name)}\n  data_type: {_TYPES[spec.dtype]}\n  {shape}\n"


def _configuration(config: Path, name: str, description: Mapping[str, Any], max_batch: int | None) -> str:
    """The configuration that a version is served by: a new one, or that which is there with an operator's settings.

    Raises:
        ValueError: that which is there is of tensors of other names, types or shapes, or a version means another.
    """
    fresh = triton_config(name, Signature.from_dict(description["signature"]), max_batch or 64)
    _refuse_other_meaning(config.parent, _meaning(description))
    if not config.exists():
        return fresh
    text = config.read_text()
    try:
        had = _tensors(text)
    except ArgumentError as error:
        raise ArgumentError(f"{config}: {error}. Mend it, or give another name.") from error
    if difference := _difference(had, _tensors(fresh)):
        raise ArgumentError(f"{config} tells of other inputs or outputs: {difference}. Give another name.")
    return text if max_batch is None else with_setting(text, "max_batch_size", str(max_batch))


def _tensors(text: str) -> dict[str, Any]:
    """What a configuration says of tensors, which is ours: the rest of it is the operator's."""
    said: dict[str, Any] = {}
    settings = parsed_text(text)
    for side in ("input", "output"):
        for each in settings.get(side, []):
            if not isinstance(each, dict) or not each.keys() >= {"name", "data_type", "dims"}:
                raise ArgumentError(f"an {side} has no name, data_type or dims")
            tensor = {"data_type": each["data_type"][-1], "dims": each["dims"], "reshape": each.get("reshape", [])}
            said[f"{side} {each['name'][-1]}"] = tensor
    return said


def _refuse_other_meaning(home: Path, meaning: Mapping[str, Any]) -> None:
    """Refuses what has the shapes of the versions that are there and means something else."""
    for file in sorted(home.glob("*/model.onnx")):
        if difference := _difference(_meaning(describe_artefact(file)), meaning):
            raise ArgumentError(
                f"version {file.parent.name} of {home.name!r} means something else: {difference}. Clients of one name "
                "rely on one meaning: give another name."
            )


def _meaning(description: Mapping[str, Any]) -> dict[str, Any]:
    windows = description["model"].get("windows", {})
    return {
        "windows": windows,
        **{side: {spec["name"]: spec for spec in description["signature"][side]} for side in _SIDES},
    }


def _difference(there: Any, here: Any, where: str = "") -> str:
    """The first difference of two plain values; empty where there is none."""
    if isinstance(there, dict) and isinstance(here, dict) and there.keys() == here.keys():
        return next(filter(None, (_difference(there[key], here[key], f"{where}{key}: ") for key in here)), "")
    if isinstance(there, dict) and isinstance(here, dict):
        return f"{where}there are {', '.join(map(str, there))} there, and {', '.join(map(str, here))} here"
    return "" if there == here else f"{where}{there!r} there, and {here!r} here"
