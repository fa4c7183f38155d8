"""Out of the notebook: saved models, programs of plain tensors, artefacts that other runtimes run, a server."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qtorch.deploy.artefact import Artefact, open_artefact
    from qtorch.deploy.artefact_file import ArtefactError, describe_artefact
    from qtorch.deploy.bundle import bundle_digest, inspect_bundle, load, load_weights, save
    from qtorch.deploy.card import model_card
    from qtorch.deploy.coreml_package import to_coreml
    from qtorch.deploy.description import BundleError
    from qtorch.deploy.executorch_program import to_executorch
    from qtorch.deploy.exported import export
    from qtorch.deploy.onnx_model import to_onnx
    from qtorch.deploy.packaged import package
    from qtorch.deploy.program import Program, program_of
    from qtorch.deploy.saved_allocator import SavedAllocator
    from qtorch.deploy.signature import Signature, TensorSpec
    from qtorch.deploy.torchscript import to_torchscript
    from qtorch.deploy.triton import to_triton, triton_config

__all__ = [
    "Artefact",
    "ArtefactError",
    "BundleError",
    "Program",
    "SavedAllocator",
    "Signature",
    "TensorSpec",
    "bundle_digest",
    "describe_artefact",
    "export",
    "inspect_bundle",
    "load",
    "load_weights",
    "model_card",
    "open_artefact",
    "package",
    "program_of",
    "save",
    "to_coreml",
    "to_executorch",
    "to_onnx",
    "to_torchscript",
    "to_triton",
    "triton_config",
]

_MODULES = {
    "Artefact": "artefact",
    "ArtefactError": "artefact_file",
    "BundleError": "description",
    "Program": "program",
    "SavedAllocator": "saved_allocator",
    "Signature": "signature",
    "TensorSpec": "signature",
    "bundle_digest": "bundle",
    "describe_artefact": "artefact_file",
    "export": "exported",
    "inspect_bundle": "bundle",
    "load": "bundle",
    "load_weights": "bundle",
    "model_card": "card",
    "open_artefact": "artefact",
    "package": "packaged",
    "program_of": "program",
    "save": "bundle",
    "to_coreml": "coreml_package",
    "to_executorch": "executorch_program",
    "to_onnx": "onnx_model",
    "to_torchscript": "torchscript",
    "to_triton": "triton",
    "triton_config": "triton",
}


def __getattr__(name: str) -> Any:
    """Imported when first named, so that the server's process that listens need not wait for torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, those that are not imported yet among them."""
    return sorted({*__all__, *globals()})
