"""Out of the notebook: saved models, and programs of plain tensors."""

from qtorch.deploy.bundle import BundleError, inspect_bundle, load, load_weights, save
from qtorch.deploy.program import Program, program_of
from qtorch.deploy.saved_allocator import SavedAllocator
from qtorch.deploy.signature import Signature, TensorSpec

__all__ = [
    "BundleError",
    "Program",
    "SavedAllocator",
    "Signature",
    "TensorSpec",
    "inspect_bundle",
    "load",
    "load_weights",
    "program_of",
    "save",
]
