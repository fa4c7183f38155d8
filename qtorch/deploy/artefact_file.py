"""An artefact on disk: one file that runs, and a sidecar that says what it is."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qtorch.deploy import pair
from qtorch.deploy.bundle import parts_of, versions
from qtorch.deploy.description import text_of
from qtorch.deploy.program import Program, kinds_of
from qtorch.deploy.regular_files import opened
from qtorch.deploy.sealed_json import MOST, digest, parsed, sealed
from qtorch.deploy.sidecar import check
from qtorch.deploy.weightless import law_in_parameters
from qtorch.errors import BriefInNotebooks
from qtorch.models.flows import Flow
from qtorch.training import Allocator, Forecaster

FORMAT = 1
CPU_ALONE = ("coreml", "executorch", "onnx")  # the kinds that run nowhere else
SHA256 = "file_sha256"  # in the sidecar
Model = Forecaster | Allocator | Flow


class ArtefactError(BriefInNotebooks, ValueError):
    """An artefact that cannot be trusted or used; the message says why."""


def sidecar_of(path: str | Path) -> Path:
    """Where the description of an artefact is: beside it, with ``.json`` after its name."""
    path = Path(path)
    return path.with_name(f"{path.name}.json")


def about(
    model: Model, program: Program, kind: str, metadata: Mapping[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """What the sidecar says of an artefact, but for its hashes.

    Args:
        model: of which it is made.
        program: of the model.
        kind: of the artefact, such as ``"onnx"``.
        metadata: plain values of the user's.
        **options: plain values that its runner needs.

    Raises:
        TypeError: a part of the model or of the metadata is not of plain values.
        ValueError: a number in the metadata is not finite.
    """
    return sealed(
        {
            "format": FORMAT,
            "kind": kind,
            "signature": program.signature.to_dict(),
            "model": _model(model, program),
            "device": "cpu" if kind in CPU_ALONE else next((p.device.type for p in program.parameters()), "cpu"),
            "metadata": dict(metadata or {}),
            "options": options,
            "versions": versions(),
        }
    )


def write(path: str | Path, about: Mapping[str, Any], make: Callable[[Path], object]) -> None:
    """Writes an artefact so that a kill at any moment leaves the old one, the new one or none.

    Args:
        path: of the artefact.
        about: as of the function of this name.
        make: writes the file, in an existing folder; what it raises leaves all as it was.

    Raises:
        ValueError: the sidecar is too large.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part.{path.name}")  # torch.export wants its ending kept
    try:
        make(part)
        content = part.read_bytes()
    finally:
        part.unlink(missing_ok=True)
    description = sealed(dict(about) | {SHA256: hashlib.sha256(content).hexdigest()})
    pair.replace(path, content, sidecar_of(path), text_of(description), SHA256)


def describe_artefact(path: str | Path) -> dict[str, Any]:
    """What the sidecar of an artefact says: its kind, signature, model, metadata, versions and hashes.

    Its ``sha256`` is of the whole: of the description, in which that of the file stands.

    Raises:
        ArtefactError: it is missing, unreadable, altered or of another format.
    """
    file = sidecar_of(path)
    try:
        with opened(file, file.parent) as stream:
            found = parsed(stream.read(MOST + 1))
        computed = digest(found)
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{file}: not readable ({error}). Export the model anew.") from error
    if found.get("format") != FORMAT:
        raise ArtefactError(
            f"{file}: of format {found.get('format')!r}, but this qtorch reads {FORMAT}. Export the model anew with it."
        )
    if found.get("sha256") != computed:
        raise ArtefactError(
            f"{file}: it was altered, as its SHA-256 is {computed} and not the one it names. Fetch it again, or export "
            "the model anew."
        )
    try:
        check(found)
    except ValueError as error:
        raise ArtefactError(f"{file}: no description of an artefact: {error}. Export the model anew.") from error
    return found


def content_of(path: str | Path, description: Mapping[str, Any]) -> bytes:
    """The bytes of an artefact's file, which are those that its description names.

    Raises:
        ArtefactError: there is none, or it is another.
    """
    path = Path(path)
    try:
        content = pair.content_of(path, description[SHA256], path.parent)
    except OSError as error:
        raise ArtefactError(f"{path}: not readable ({error}). Export the model anew.") from error
    if content is not None:
        return content
    raise ArtefactError(f"{path}: its SHA-256 is not the one in its sidecar. Fetch it again, or export the model anew.")


def _model(model: Model, program: Program) -> dict[str, Any]:
    if isinstance(model, Flow):
        kind = type(model)
        return {"kind": Flow.__name__, "class_path": f"{kind.__module__}.{kind.__qualname__}"}
    parts = parts_of(model)
    if isinstance(model, Allocator):
        parts["kinds"] = kinds_of(model)
    if isinstance(model, Forecaster):
        network = model.network
        parts |= {
            "layout": network.layout,
            "causal": network.causal,
            "gives": "density" if len(program.signature.inputs) > 2 else "parameters",
            "law_in_parameters": law_in_parameters(model, program),
        }
    return parts
