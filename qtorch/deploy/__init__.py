"""Out of the notebook: saved models, and programs of plain tensors."""

from qtorch.deploy.artefact import Artefact, open_artefact
from qtorch.deploy.artefact_file import ArtefactError, describe_artefact
from qtorch.deploy.bundle import BundleError, inspect_bundle, load, load_weights, save
from qtorch.deploy.coreml_package import to_coreml
from qtorch.deploy.executorch_program import to_executorch
from qtorch.deploy.exported import export
from qtorch.deploy.program import Program, program_of
from qtorch.deploy.saved_allocator import SavedAllocator
from qtorch.deploy.signature import Signature, TensorSpec
from qtorch.deploy.torchscript import to_torchscript

__all__ = [
    "Artefact",
    "ArtefactError",
    "BundleError",
    "Program",
    "SavedAllocator",
    "Signature",
    "TensorSpec",
    "describe_artefact",
    "export",
    "inspect_bundle",
    "load",
    "load_weights",
    "open_artefact",
    "program_of",
    "save",
    "to_coreml",
    "to_executorch",
    "to_torchscript",
]
