"""Every program that can be exported: one graph for all sizes, with eager's numbers, of operations others know."""

import pytest
import torch

from tests.deploy.exported import programs

PROGRAMS = programs()
FAST = ("encoder gru",)
SIZES = ({}, {"B": 1}, {"B": 5, "C": 29, "N": 2, "K": 4}, {"B": 2, "C": 2, "N": 23, "K": 1}, {"C": 1, "N": 3}, {"N": 1})
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
    for given in SIZES:
        inputs = program.example(**{axis: size for axis, size in given.items() if axis in program.letters})
        for ours, eager in zip(module(*inputs), program(*inputs), strict=True):
            torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)
    used = operations(exported)
    forbidden = {op for op in used if any(part in op for part in FORBIDDEN)}
    known = next((ops for start, ops in HAVE.items() if name.startswith(start)), set())
    assert {op.removeprefix("aten.").removesuffix(".default") for op in forbidden} <= known
    assert {op for op in used if op.startswith("qtorch.")} <= OURS
