"""Every law on a GPU is that on the CPU."""

import pytest
import torch

from qtorch.distributions import log_cdf, tail_mean
from tests.distributions.test_families import LAWS, MASSES

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", LAWS)
def test_laws_on_the_gpu_are_those_on_the_cpu(name):
    make, parameters, _ = LAWS[name]
    law, there = make(*parameters), make(*(value.cuda() for value in parameters))
    x, p = law.icdf(MASSES), MASSES.cuda()
    assert there.sample((3,)).is_cuda
    for got, expected in (
        (there.icdf(p), x),
        (there.log_prob(x.cuda()), law.log_prob(x)),
        (there.cdf(x.cuda()), law.cdf(x)),
        (log_cdf(there, x.cuda()), log_cdf(law, x)),
        (tail_mean(there, p), tail_mean(law, MASSES)),
        (tail_mean(there, 0.025), tail_mean(law, 0.025)),
        (there.mean, law.mean),
    ):
        assert got.is_cuda
        torch.testing.assert_close(got.cpu(), expected, rtol=1e-11, atol=1e-13)
