"""Model repositories of NVIDIA's Triton Inference Server."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qtorch.deploy.artefact_file import ArtefactError, Model, content_of, describe_artefact, write
from qtorch.deploy.extras import needed
from qtorch.deploy.onnx_model import KIND, refuse_other_files, to_onnx
from qtorch.deploy.program import program_of
from qtorch.deploy.signature import Signature, TensorSpec
from qtorch.distributions.checks import require

_TYPES = {"bool": "TYPE_BOOL", "float32": "TYPE_FP32", "float64": "TYPE_FP64", "int64": "TYPE_INT64"}


def to_triton(
    model: Model | str | Path,
    folder: str | Path,
    name: str,
    version: int = 1,
    *,
    max_batch: int = 64,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a version of a model into a repository that NVIDIA Triton serves by its ONNX Runtime backend.

    That is ``<folder>/<name>/config.pbtxt`` and ``<folder>/<name>/<version>/model.onnx``. Triton serves all versions
    that are there, and joins requests of equal shapes to batches. The configuration is written after the first version;
    a later version must have its inputs and outputs.

    Args:
        model: a model, or the path of an artefact that `to_onnx` wrote.
        folder: the repository, made if needed.
        name: of the model in it: letters, digits, ``-``, ``_`` and ``.``.
        version: a number from 1; one that is there is replaced.
        max_batch: windows that are computed together at most.
        metadata: as of `to_onnx`, of a model.

    Returns:
        The model's folder.

    Raises:
        ValueError: a name, version or batch that Triton does not take, or other inputs or outputs than earlier
            versions have.
        ArtefactError: the path holds no artefact of ONNX.
        ImportError: the extra ``onnx`` is not installed.
    """
    safe = re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII) is not None
    require(safe, "name", name, "letters, digits, '-', '_' and '.' alone, since it names a folder")
    require(version >= 1, "version", version, "give 1 or more")
    require(max_batch >= 1, "max_batch", max_batch, "give 1 or more")
    home = Path(folder) / name
    file, config = home / str(version) / "model.onnx", home / "config.pbtxt"
    if isinstance(model, str | Path):
        description = describe_artefact(model)
        if description["kind"] != KIND:
            raise ArtefactError(f"{model}: of kind {description['kind']}, but Triton is given ONNX. Give to_onnx's.")
        content = content_of(model, description)
        refuse_other_files(needed("onnx", "onnx", "to_triton").load_model_from_string(content))
        text = triton_config(name, Signature.from_dict(description["signature"]), max_batch)
        _refuse_other(config, text, max_batch)
        write(file, description, lambda part: part.write_bytes(content))
    else:
        text = triton_config(name, program_of(model).signature, max_batch)
        _refuse_other(config, text, max_batch)
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
    comments = "".join(f"  # {line}\n" for line in spec.meaning.splitlines())
    return f"{comments}  name: {json.dumps(spec.name)}\n  data_type: {_TYPES[spec.dtype]}\n  {shape}\n"


def _refuse_other(config: Path, text: str, max_batch: int) -> None:
    """Refuses another signature than that of the versions that are there."""
    if config.exists():
        had, has = (re.sub(r"(?m)^max_batch_size:.*\n|^ *#.*\n", "", each) for each in (config.read_text(), text))
        require(
            had == has, "model", config.parent.name, f"{config} tells of other inputs or outputs: give another name"
        )
