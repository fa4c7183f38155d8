"""Layers that respect masks, and modules as plain text."""

from qtorch.nn.attention import CausalBlock, causal_mask, rotary
from qtorch.nn.specs import Spec, build, describe

__all__ = ["CausalBlock", "Spec", "build", "causal_mask", "describe", "rotary"]
