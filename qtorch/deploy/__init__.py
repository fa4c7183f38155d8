"""Out of the notebook: saved models."""

from qtorch.deploy.bundle import BundleError, inspect_bundle, load, load_weights, save
from qtorch.deploy.saved_allocator import SavedAllocator

__all__ = ["BundleError", "SavedAllocator", "inspect_bundle", "load", "load_weights", "save"]
