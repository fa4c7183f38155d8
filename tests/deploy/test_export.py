"""Every program that can be exported: one graph for all sizes, with eager's numbers, of operations others know."""

import pytest
import torch

from qtorch.deploy.parity import hold, probes
from tests.deploy.exported import programs

PROGRAMS = programs()
FAST = ("encoder gru",)
FORBIDDEN = ("lgamma", "digamma", "erfinv", "ndtri", "searchsorted", "bucketize", "cholesky", "eigh", "eigvals")
FORBIDDEN += ("solve", "slogdet", "linalg_inv", "svd", "_qr", "bitwise_or", "autocast", "set_grad_enabled", "out=")
OURS = {"qtorch.recurrence.default"}
# Joint densities have quantiles of the normal law and solve for their factors; Gaussianisation has such quantiles too.
SOLVE = {"linalg_cholesky", "cholesky_inverse"}
HAVE = {
    "density copula": SOLVE | {"special_ndtri"},
    "density attentional": {"special_ndtri"},
    "density coupling": SOLVE,
    "flow GaussianisationFlow": {"special_ndtri", "wrap_with_autocast", "wrap_with_set_grad_enabled"},
}


def operations(exported: torch.export.ExportedProgram) -> set[str]:
    modules = (module for module in exported.graph_module.modules() if isinstance(module, torch.fx.GraphModule))
    nodes = (node for module in modules for node in module.graph.nodes if node.op == "call_function")
    return {str(node.target) for node in nodes}


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS]
)
def test_a_program_is_exported_once_for_all_sizes(name):
    program = PROGRAMS[name]()
    exported = torch.export.export(program, program.example(), dynamic_shapes=(program.dynamic_shapes(),))
    module = exported.module()
    hold(program, module, probes(program), 1e-5, "exported")
    used = operations(exported)
    forbidden = {op for op in used if any(part in op for part in FORBIDDEN)}
    known = next((ops for start, ops in HAVE.items() if name.startswith(start)), set())
    assert {op.removeprefix("aten.").removesuffix(".default") for op in forbidden} <= known
    assert {op for op in used if op.startswith("qtorch.")} <= OURS
