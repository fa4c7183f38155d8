"""Exports a program once for all sizes and holds it against eager mode, of operations that others know.

Run in a process of its own for programs with loops, because run-time checks of annotations can't be exported in them.

Usage: python -m tests.deploy.exported_once NAME
"""

import sys

import torch

from qtorch.deploy import Program
from qtorch.deploy.parity import hold, probes
from tests.deploy.exported import programs

FORBIDDEN = ("lgamma", "digamma", "erfinv", "ndtri", "searchsorted", "bucketize", "cholesky", "eigh", "eigvals")
FORBIDDEN += ("solve", "slogdet", "linalg_inv", "svd", "_qr", "bitwise_or", "autocast", "set_grad_enabled", "out=")
OURS = {"qtorch.recurrence.default"}
# Joint densities have quantiles of the normal law and solve for their factors; Gaussianisation has such quantiles too.
SOLVE = {"linalg_cholesky", "cholesky_inverse"}
HAVE = {
    "density copula": SOLVE | {"special_ndtri"},
    "density attentional": {"special_ndtri"},
    "density coupling": SOLVE,
    "allocator relational, bases": {"wrap_with_autocast"},
    "allocator learned": {"wrap_with_autocast"},
    "flow GaussianisationFlow": {"special_ndtri", "wrap_with_autocast", "wrap_with_set_grad_enabled"},
}


def operations(exported: torch.export.ExportedProgram) -> set[str]:
    modules = (module for module in exported.graph_module.modules() if isinstance(module, torch.fx.GraphModule))
    nodes = (node for module in modules for node in module.graph.nodes if node.op == "call_function")
    return {str(node.target) for node in nodes}


def check(name: str, program: Program) -> None:
    exported = torch.export.export(program, program.example(), dynamic_shapes=(program.dynamic_shapes(),))
    module = exported.module()
    least = 2 if name == "allocator learned" else 1  # of assets, one of which could hear from none
    hold(program, module, [sizes for sizes in probes(program) if sizes.get("N", least) >= least], 1e-5, "exported")
    used = operations(exported)
    forbidden = {op for op in used if any(part in op for part in FORBIDDEN)}
    known = next((ops for start, ops in HAVE.items() if name.startswith(start)), set())
    assert {op.removeprefix("aten.").removesuffix(".default") for op in forbidden} <= known
    assert {op for op in used if op.startswith("qtorch.")} <= OURS


if __name__ == "__main__":
    check(sys.argv[1], programs()[sys.argv[1]]())
