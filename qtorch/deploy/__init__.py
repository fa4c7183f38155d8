"""Out of the notebook: saved models."""

from qtorch.deploy.bundle import BundleError, inspect_bundle, load, save

__all__ = ["BundleError", "inspect_bundle", "load", "save"]
