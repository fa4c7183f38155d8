import pytest
import torch

from qtorch import heads


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_no_hidden_state_gives_an_absurd_forecast(size):
    head = heads.SkewedStudentT(8, (1, 10))
    torch.nn.init.normal_(head.project.weight)
    distribution = head(size * torch.randn(500, 8))
    root = torch.tensor([1.0, 10.0]).sqrt()
    volatility = distribution.scale * torch.sqrt(distribution.df / (distribution.df - 2))
    assert ((volatility >= 0.124 * root) & (volatility <= 8.01 * root)).all()
    assert ((distribution.df >= 2.1) & (distribution.df <= 60)).all()
    assert (distribution.icdf(torch.tensor(0.1)) < 0).all()


def test_a_fresh_head_is_riskmetrics_with_heavier_tails():
    distribution = heads.SkewedStudentT(8, (1, 10))(torch.randn(3, 8))
    torch.testing.assert_close(distribution.variance, torch.tensor([[1.0, 10.0]]).expand(3, 2), rtol=1e-5, atol=0)
    assert distribution.df.min() > 5
    assert (distribution.mean == 0).all()
