"""Layers that respect masks."""

from qtorch.nn.attention import CausalBlock, causal_mask, rotary

__all__ = ["CausalBlock", "causal_mask", "rotary"]
