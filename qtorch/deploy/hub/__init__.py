"""Saved models on the Hugging Face Hub; needs the extra `hub`."""

from qtorch.deploy.hub.repository import from_pretrained, push, save_pretrained

__all__ = ["from_pretrained", "push", "save_pretrained"]
