"""Out of the notebook: saved models, and programs of plain tensors."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "BundleError": "bundle",
    "Program": "program",
    "SavedAllocator": "saved_allocator",
    "Signature": "signature",
    "TensorSpec": "signature",
    "inspect_bundle": "bundle",
    "load": "bundle",
    "load_weights": "bundle",
    "program_of": "program",
    "save": "bundle",
}


def __getattr__(name: str) -> Any:
    """Imported when first named, so that the server's process that listens need not wait for torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, those that are not imported yet among them."""
    return sorted({*__all__, *globals()})
