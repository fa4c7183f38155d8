"""Out of the notebook: saved models, programs of plain tensors, and artefacts that other runtimes run."""

from qtorch.deploy.artefact import Artefact, open_artefact
from qtorch.deploy.artefact_file import ArtefactError, describe_artefact
from qtorch.deploy.bundle import bundle_digest, inspect_bundle, load, load_weights, save
from qtorch.deploy.card import model_card
from qtorch.deploy.description import BundleError
from qtorch.deploy.exported import export
from qtorch.deploy.onnx_model import to_onnx
from qtorch.deploy.packaged import package
from qtorch.deploy.program import Program, program_of
from qtorch.deploy.saved_allocator import SavedAllocator
from qtorch.deploy.signature import Signature, TensorSpec
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
    "to_onnx",
    "to_triton",
    "triton_config",
]
