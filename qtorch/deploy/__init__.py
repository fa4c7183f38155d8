"""Out of the notebook: saved models."""

from qtorch.deploy.bundle import bundle_digest, inspect_bundle, load, load_weights, save
from qtorch.deploy.card import model_card
from qtorch.deploy.description import BundleError
from qtorch.deploy.saved_allocator import SavedAllocator

__all__ = [
    "BundleError",
    "SavedAllocator",
    "bundle_digest",
    "inspect_bundle",
    "load",
    "load_weights",
    "model_card",
    "save",
]
