"""Joint heads: compiled, described, of any marginals."""

import os
import subprocess
import sys

import pytest
import torch

from qtorch import heads
from qtorch.nn import build, describe


def compiled(*arguments: str) -> None:
    command = [sys.executable, "-m", "tests.heads.compiled_joint", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SkewedStudentT", "FlowHead"])
def test_a_network_with_one_compiles_whole(kind):
    compiled(kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SkewedStudentT", "FlowHead", "AttentionalCopulaHead", "CouplingFlowHead"])
def test_joint_densities_compile_without_a_graph_break(kind):
    compiled(kind, "densities")


@pytest.mark.parametrize("kind", [heads.SkewedStudentT, heads.FlowHead])
def test_it_is_made_of_its_heads_whatever_they_are(kind):
    torch.manual_seed(0)
    head = heads.JointHead(kind(8, (1, 5)), heads.CopulaHead(8, 2))
    torch.nn.init.normal_(head.marginals.project.weight, std=0.3)
    hidden, y = torch.randn(3, 4, 8, requires_grad=True), torch.randn(3, 2, 4)
    law = head(hidden)
    own = head.marginals(hidden)  # [3, 4, 2]
    torch.testing.assert_close(law.marginals.log_prob(y), own.log_prob(y.mT).mT)
    copula = head.copula(hidden)
    for h in (0, 1):
        expected = own.log_prob(y.mT)[..., h].sum(-1) + copula.log_prob_of_scores(law.scores(y)[:, h])
        torch.testing.assert_close(law.log_prob(y)[:, h].double(), expected.double(), rtol=1e-5, atol=1e-5)
    law.log_prob(y).sum().backward()
    assert all(value.grad.isfinite().all() and value.grad.any() for value in (hidden, *head.parameters()))
    again = build(describe(head))
    assert type(again.marginals) is kind
    assert (again.in_features, again.horizons, again.copula.factors) == (8, (1, 5), 2)


def test_the_windows_arguments_go_to_the_heads_that_take_them():
    parts = {
        "marginals": {"class_path": "qtorch.heads.FlowHead"},
        "copula": {"class_path": "qtorch.heads.CopulaHead", "init_args": {"factors": 3}},
    }
    spec = {"class_path": "qtorch.heads.JointHead", "init_args": parts}
    head = build(spec, in_features=16, horizons=[1, 10])
    assert (head.marginals.in_features, head.copula.in_features, head.horizons) == (16, 16, (1, 10))
    assert parts["marginals"] == {"class_path": "qtorch.heads.FlowHead"}

    def with_copula(class_path, **given):
        copula = {"class_path": class_path, "init_args": given}
        build({**spec, "init_args": {**parts, "copula": copula}}, in_features=16, horizons=[1])

    with pytest.raises(ValueError, match="CopulaHead.*factors"):
        with_copula("qtorch.heads.CopulaHead")
    with pytest.raises(ValueError, match="init_args give in_features=8, but the windows need 16"):
        with_copula("qtorch.heads.CopulaHead", factors=3, in_features=8)
    with pytest.raises(ValueError, match=r"os\.system"):
        with_copula("os.system")
    with pytest.raises(ValueError, match="State.*is not a torch.nn.Module"):
        with_copula("qtorch.data.State")
    with pytest.raises(ValueError, match="dropout"):
        build(spec, in_features=16, horizons=[1], dropout=0.1)


@pytest.mark.parametrize(
    "posterior",
    [
        lambda head: heads.DrawnWeights(head, 4),
        heads.EachDraw,
        lambda head: heads.Ensemble(head, 3, shared=True),
        heads.Variational,
        lambda head: heads.VariationalNormal(8, (1, 5)),
        lambda head: heads.GaussianProcessNormal(8, (1, 5)),
    ],
)
def test_marginals_that_are_posteriors_are_refused(posterior):
    """Their draws would be scored as one mixture in training, which is no evidence bound."""
    with pytest.raises(ValueError, match="mix whole forecasters by qtorch.training.Ensemble"):
        heads.JointHead(posterior(heads.SkewedStudentT(8, (1, 5))), heads.CopulaHead(8, 2))
