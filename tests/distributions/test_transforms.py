"""What every transform must do: inverse, Jacobian, gradients, extremes, half precision, one graph."""

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.distributions import Normal, TransformedDistribution

from qtorch.distributions import StudentT
from qtorch.distributions.transforms import (
    Affine,
    Autoregressive,
    Bernstein,
    Composed,
    Continuous,
    Coupling,
    LULinear,
    MixtureGaussianisation,
    NormalScores,
    ParetoTails,
    Permutation,
    RationalQuadratic,
    Rotation,
    StudentTails,
    UnconstrainedMonotone,
)
from qtorch.distributions.transforms.bijection import soft_clip

D = 3


def draws(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


# Constructor and parameters; the batch shape of the elementwise ones is [D].
CASES = {
    "affine": (Affine, [draws(2, D)]),
    "spline": (RationalQuadratic, [draws(23, D)]),
    "spline, 2 bins": (lambda p: RationalQuadratic(p, bound=2.0), [draws(5, D)]),
    "tails": (
        ParetoTails,
        [draws(D), draws(D).exp(), torch.tensor(0.2).double(), torch.tensor([0.01, 0.3, 0.8]).double()],
    ),
    "tails, exponential": (ParetoTails, [draws(D), draws(D).exp(), torch.zeros(D).double(), torch.zeros(D).double()]),
    "student tails": (
        StudentTails,
        [draws(D), draws(D).exp(), torch.tensor(0.2).double(), torch.tensor([0.01, 0.3, 0.8]).double()],
    ),
    "student tails, none": (StudentTails, [draws(D), draws(D).exp(), torch.zeros(D).double(), torch.zeros(D).double()]),
    "scores": (lambda df, scale: NormalScores(StudentT(df, 0.1, scale)), [torch.tensor(3.0).double(), draws(D).exp()]),
    "bernstein": (Bernstein, [draws(9, D)]),
    "bernstein, small box": (lambda p: Bernstein(p, bound=2.0), [draws(4, D)]),
    "monotone": (UnconstrainedMonotone, [draws(14, D)]),
    "mixture": (MixtureGaussianisation, [draws(9, D)]),
    "rotation": (Rotation, [draws(D, D)]),
    "continuous": (
        lambda w: Continuous(lambda t, x: (x @ w).tanh() * (1 + t), torch.eye(D, dtype=w.dtype), steps=24),
        [0.1 * draws(D, D)],
    ),
    "linear": (LULinear, [0.3 * draws(D, D), draws(D)]),
    "permutation": (lambda: Permutation([2, 0, 1]), []),
    "composed": (
        lambda p, f: Composed([Affine(p), LULinear(f, f[0]), Permutation([1, 2, 0])]),
        [draws(2, D), draws(D, D)],
    ),
    "coupling": (
        lambda w: Coupling(lambda x: torch.tensordot(w, x.asinh(), 1).unflatten(0, (23, D - 1)), RationalQuadratic, 1),
        [draws(46, 1)],
    ),
}
cases = pytest.mark.parametrize("name", CASES)
SOME = torch.tensor([[-50.0, 0.3, 4.9], [-1.2, 0.0, 50.0], [5.0, -5.0, 2.1]], dtype=torch.float64)


def make(name, dtype=torch.float64):
    kind, parameters = CASES[name]
    return kind(*(p.to(dtype) for p in parameters))


@cases
def test_the_inverse_inverts(name):
    f = make(name)
    x = torch.cat((SOME, 2 * draws(200, D)))
    y, ladj = f.call_and_ladj(x)
    back, back_ladj = f.inv_and_ladj(y)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back_ladj, -ladj, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(f.inv(f(x)), x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(f.log_abs_det_jacobian(x, y), ladj)
    assert ladj.shape == (x.shape[:-1] if f.event_dim else x.shape)
    assert f(x.expand(2, *x.shape)).shape == (2, *x.shape)


@cases
def test_ladj_is_that_of_autograds_jacobian(name):
    f = make(name)
    for x in SOME:
        x = x + 0.01
        for value, pass_ in ((x, f.call_and_ladj), (f(x), f.inv_and_ladj)):
            matrix = jacobian(lambda v, pass_=pass_: pass_(v)[0], value)
            ladj = pass_(value)[1]
            expected = torch.linalg.slogdet(matrix).logabsdet
            torch.testing.assert_close(ladj if f.event_dim else ladj.sum(), expected, rtol=1e-6, atol=1e-7)


@cases
def test_gradients_of_values_and_ladj_are_right(name):
    kind, parameters = CASES[name]
    x = draws(2, D) + 0.01
    leaves = [p.clone().requires_grad_() for p in (x, *parameters) if not (p == 0).all()]
    constants = parameters[len(leaves) - 1 :]
    fast = name in ("continuous", "mixture", "monotone")  # along random directions
    for way in ("call_and_ladj", "inv_and_ladj"):
        assert torch.autograd.gradcheck(
            lambda v, *p, way=way: getattr(kind(*p, *constants), way)(v), leaves, atol=1e-5, rtol=1e-4, fast_mode=fast
        )


@cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes_stay_finite_with_their_gradients(name, dtype):
    kind, parameters = CASES[name]
    x = torch.tensor([[-50.0, 50.0, 0.0], [5.0, -5.0, 30.0], [-1e4, 1e4, 7.0]], dtype=dtype)
    for way in ("call_and_ladj", "inv_and_ladj"):
        value = x.clamp(-50, 50) if way == "inv_and_ladj" else x
        leaves = [v.to(dtype).clone().requires_grad_() for v in (value, *parameters)]
        y, ladj = getattr(kind(*leaves[1:]), way)(leaves[0])
        assert y.dtype == dtype
        assert torch.isfinite(y).all()
        assert torch.isfinite(ladj).all()
        grads = torch.autograd.grad((y / (1 + y.detach().abs())).sum() + ladj.sum(), leaves, allow_unused=True)
        assert all(torch.isfinite(g).all() for g in grads if g is not None)


@cases
def test_half_precision_is_computed_in_float32(name):
    if name in ("coupling", "continuous"):
        pytest.skip("its network is the caller's")
    kind, parameters = CASES[name]
    x = draws(5, D).bfloat16()
    if name == "scores":
        f = make(name, torch.float32)
    else:
        f = kind(*(p.bfloat16() for p in parameters))
    with torch.autocast("cpu", torch.bfloat16):
        y, ladj = f.call_and_ladj(x)
        back, _ = f.inv_and_ladj(y)
    assert y.dtype == ladj.dtype == torch.float32
    torch.testing.assert_close(back, x.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("xi", [0.0, 0.25, 1 / 3])
def test_pareto_tails_make_a_pareto_law_of_a_normal_one(xi):
    index = torch.tensor(xi, dtype=torch.float64)
    f = ParetoTails(torch.tensor(0.5).double(), torch.tensor(2.0).double(), index, index)
    law = TransformedDistribution(Normal(torch.tensor(0.0).double(), 1.0), [f.inv])
    t = torch.tensor([0.3, 2.0, 40.0], dtype=torch.float64)
    survival = torch.exp(-t) if xi == 0 else (1 + xi * t) ** (-1 / xi)
    expected = torch.log(0.5 * survival / (1 if xi == 0 else 1 + xi * t) / 2)
    torch.testing.assert_close(law.log_prob(0.5 + 2 * t), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.log_prob(0.5 - 2 * t), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("df", [3.0, 8.0])
def test_student_tails_leave_a_t_law_nearly_normal(df):
    nu = torch.tensor(df, dtype=torch.float64)
    f = StudentTails(torch.zeros_like(nu), torch.ones_like(nu), 1 / nu, 1 / nu)
    z = torch.linspace(0.5, 12, 50, dtype=torch.float64)
    law = TransformedDistribution(StudentT(nu), [f])
    factor = law.log_prob(z) + 0.5 * z * z - torch.log(z / torch.sqrt(-torch.expm1(-z * z / nu)))
    torch.testing.assert_close(factor, factor[:1].expand(50), rtol=1e-10, atol=1e-10)
    t = torch.tensor([1e3, 1e30], dtype=torch.float64)  # the slope is that of a power law
    torch.testing.assert_close(f.inv(torch.sqrt(nu * torch.log1p(t * t / nu))), t, rtol=1e-10, atol=0.0)


def test_student_tails_without_index_are_the_identity():
    zero = torch.zeros((), dtype=torch.float64)
    y, ladj = StudentTails(zero, zero + 1, zero, zero).call_and_ladj(SOME)
    assert torch.equal(y, SOME)
    assert not ladj.any()


def test_autoregression_takes_its_steps_one_by_one():
    class Before:
        """Parameters from the sum of the coordinates before."""

        def __call__(self, x):
            return torch.stack((x.cumsum(0) - x, (x.cumsum(0) - x).sin()))

        def steps(self, shape):
            self.total = torch.zeros(shape, dtype=torch.float64)
            return self

        def next(self, before):
            self.total = self.total if before is None else self.total + before
            return torch.stack((self.total, self.total.sin()))

    f = Autoregressive(Before(), Affine)
    x = draws(4, D)
    y, ladj = f.call_and_ladj(x)
    back, back_ladj = f.inv_and_ladj(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(back_ladj, -ladj)


def test_a_wrong_permutation_or_number_of_parameters_is_refused():
    with pytest.raises(ValueError, match="once"):
        Permutation([0, 0, 1])
    with pytest.raises(ValueError, match="3 K - 1"):
        RationalQuadratic(torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("kind", "count"), [(Bernstein, 12), (UnconstrainedMonotone, 26), (MixtureGaussianisation, 12)]
)
def test_parameters_of_0_give_the_identity(kind, count):
    x = torch.cat((SOME, torch.tensor([[1e6, -1e10, 0.0]]).double()))
    y, ladj = kind(torch.zeros(count, 1).double()).call_and_ladj(x)
    torch.testing.assert_close(y, x, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ladj, torch.zeros_like(x), rtol=0, atol=1e-10)


def test_the_score_of_a_mixture_is_right_and_far_out_that_of_its_widest_kernel():
    f = MixtureGaussianisation(torch.tensor([0.0, 1.0, -1.0, 2.0, 0.3, -0.5]).double())
    weight, loc = torch.softmax(torch.tensor([0.0, 1.0]).double(), 0), torch.tensor([-1.0, 2.0]).double()
    scale = torch.exp(soft_clip(torch.tensor([0.3, -0.5]).double(), 5.0))
    x = torch.linspace(-4, 5, 19).double()
    mass = (weight * torch.special.ndtr((x[:, None] - loc) / scale)).sum(-1)
    torch.testing.assert_close(f(x), torch.special.ndtri(mass), rtol=1e-8, atol=1e-8)
    far = torch.tensor([-1e30, 1e30]).double().requires_grad_()
    y, ladj = f.call_and_ladj(far)
    torch.testing.assert_close(y, far.detach() / scale[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(ladj, -torch.log(scale[0]).expand(2), rtol=1e-9, atol=1e-9)
    (grad,) = torch.autograd.grad(y.sum(), far)
    torch.testing.assert_close(grad, 1 / scale[0].expand(2), rtol=1e-9, atol=0)


def test_hutchinsons_estimate_is_the_divergence_on_average():
    w = 0.5 * draws(D, D)
    velocity = lambda t, x: (x @ w).tanh()  # noqa: E731
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * D)  # all of them: no error is left
    x = draws(4, D)
    exact = Continuous(velocity, torch.eye(D).double()).call_and_ladj(x)[1]
    torch.testing.assert_close(Continuous(velocity, signs / len(signs) ** 0.5).call_and_ladj(x)[1], exact)


def test_a_rotation_is_that_of_its_matrix_up_to_signs():
    matrix = torch.linalg.qr(draws(4, 4)).Q
    found = Rotation(Rotation.vectors_of(matrix)).matrix
    torch.testing.assert_close((found.mT @ matrix).abs(), torch.eye(4).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "count"), [(Bernstein, 1), (UnconstrainedMonotone, 4), (MixtureGaussianisation, 4)])
def test_a_wrong_number_of_parameters_is_refused(kind, count):
    with pytest.raises(ValueError, match="parameters"):
        kind(torch.zeros(count, 2))


def test_the_integral_of_a_network_has_the_slope_that_its_ladj_says_whatever_the_parameters():
    x = torch.linspace(-5, 5, 400).double().requires_grad_()
    for size, error in ((1.0, 1e-11), (20.0, 2e-8)):
        y, ladj = UnconstrainedMonotone(size * draws(14, 400)).call_and_ladj(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(torch.log(slope), ladj, rtol=0, atol=error)


@pytest.mark.parametrize(
    ("kind", "count"), [(Bernstein, 17), (UnconstrainedMonotone, 20), (MixtureGaussianisation, 24)]
)
def test_steep_and_flat_maps_are_inverted(kind, count):
    f = kind(4 * draws(count, 500))
    x = 3 * draws(500)
    y = f(x)
    torch.testing.assert_close(f(f.inv(y)), y, rtol=1e-11, atol=1e-11)


def test_a_spline_is_whole_at_its_knots_and_the_identity_beyond():
    """Float32 values next to the knots of steep bins, where rounding takes them past an end."""
    torch.manual_seed(0)
    parameters = 10 * torch.randn(23, 5000)
    p = torch.softmax(parameters[:8].double(), 0) * (1 - 8e-3) + 1e-3
    knots = (-5 + 10 * p.cumsum(0)[:-1]).float()
    for shift in (-1e-6, 0.0, 1e-6):
        for knot in knots + shift:
            x, raw = knot.clone().requires_grad_(), parameters.clone().requires_grad_()
            y, ladj = RationalQuadratic(raw).call_and_ladj(x)
            assert torch.isfinite(y).all()
            assert torch.isfinite(ladj).all()
            assert all(torch.isfinite(g).all() for g in torch.autograd.grad(y.sum() + ladj.sum(), (x, raw)))
    far = torch.tensor([-5.0, 5.0, -60.0, 60.0]).unsqueeze(1).expand(-1, 5000)
    y, ladj = RationalQuadratic(parameters.unsqueeze(1)).call_and_ladj(far)
    torch.testing.assert_close(y, far)
    assert (ladj == 0).all()


def test_a_spline_takes_values_and_parameters_of_two_dtypes():
    x, parameters = torch.linspace(-6, 6, 7), torch.randn(23, 7)
    exact, _ = RationalQuadratic(parameters.double()).call_and_ladj(x.double())
    for one, other in ((x.double(), parameters), (x, parameters.double())):
        torch.testing.assert_close(RationalQuadratic(other).call_and_ladj(one)[0], exact)
