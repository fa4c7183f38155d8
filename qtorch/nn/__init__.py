"""Layers that respect masks, and modules as plain text."""

from qtorch.nn.attention import Block, usable_keys
from qtorch.nn.clock import days_since_start
from qtorch.nn.compaction import last_usable, take, usable_first
from qtorch.nn.drawn_dropout import DrawnDropout
from qtorch.nn.dropout import Dropout
from qtorch.nn.gru import last_states
from qtorch.nn.induced import InducedBlock
from qtorch.nn.instance_norm import instance_norm
from qtorch.nn.members import afresh, each_of, member_of, run_together, stacked, stacked_parameters
from qtorch.nn.memory_block import MemoryBlock
from qtorch.nn.noise import noisy
from qtorch.nn.rank_one import RankOneLinear
from qtorch.nn.recurrence import Recurrence
from qtorch.nn.replacing import replace_parts
from qtorch.nn.rotary import rotary_angles, rotate
from qtorch.nn.specs import Spec, build, construct, describe
from qtorch.nn.steps import last_steps, windows_of

__all__ = [
    "Block",
    "DrawnDropout",
    "Dropout",
    "InducedBlock",
    "MemoryBlock",
    "RankOneLinear",
    "Recurrence",
    "Spec",
    "afresh",
    "build",
    "construct",
    "days_since_start",
    "describe",
    "each_of",
    "instance_norm",
    "last_states",
    "last_steps",
    "last_usable",
    "member_of",
    "noisy",
    "replace_parts",
    "rotary_angles",
    "rotate",
    "run_together",
    "stacked",
    "stacked_parameters",
    "take",
    "usable_first",
    "usable_keys",
    "windows_of",
]
