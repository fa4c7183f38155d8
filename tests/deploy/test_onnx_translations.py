"""Operations that ONNX does not have, written by others, against independent numbers."""

import io

import mpmath as mp
import numpy as np
import pytest
import scipy.special
import torch

pytestmark = pytest.mark.deploy


class Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor):
        return self.function(*inputs)


def by_onnx(function, *inputs: torch.Tensor) -> list[np.ndarray]:
    """What ONNX Runtime makes of a function of these inputs."""
    return in_onnx(function, *inputs)(*inputs)


def in_onnx(function, *inputs: torch.Tensor):
    """A function in ONNX Runtime, exported with these inputs and with the first axis free."""
    import onnxruntime

    from qtorch.deploy.onnx_translations import TRANSLATIONS

    made = torch.onnx.export(
        Function(function).eval(),
        inputs,
        dynamo=True,
        opset_version=20,
        dynamic_shapes=(({0: torch.export.Dim.DYNAMIC},) * len(inputs),),
        custom_translation_table=TRANSLATIONS,
        verbose=False,
    )
    content = io.BytesIO()
    made.save(content)
    session = onnxruntime.InferenceSession(content.getvalue(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda *given: session.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-15), (torch.float32, 1e-6)])
def test_the_normal_quantile_is_scipys(dtype, tolerance):
    p = torch.tensor(
        [0.0, 1e-300, 1e-40, 1e-20, 1e-9, 1e-3, 0.02, 0.0749, 0.0751, 0.3, 0.5, 0.7, 0.9251, 0.99999, 1.0, 1.5],
        dtype=dtype,
    )
    p = torch.cat([p, torch.linspace(1e-4, 0.999, 500, dtype=dtype)])
    (ours,) = by_onnx(torch.special.ndtri, p)
    assert ours.dtype == p.numpy().dtype
    np.testing.assert_allclose(ours, scipy.special.ndtri(p.numpy().astype(float)), rtol=tolerance, atol=tolerance)


def log_normal_cdf(x):
    """The log of the normal law's distribution function, from the tail that is the smaller."""
    tail = mp.erfc(abs(x) / mp.sqrt(2)) / 2
    return mp.log(tail) if x < 0 else mp.log1p(-tail)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (torch.erf, mp.erf),
        (torch.erfc, mp.erfc),
        (torch.special.log_ndtr, log_normal_cdf),
        (torch.asinh, mp.asinh),
        (torch.sinh, lambda x: mp.sinh(x) if abs(x) < 1000 else mp.inf * x),
    ],
    ids=["erf", "erfc", "log_ndtr", "asinh", "sinh"],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-15), (torch.float32, 1e-6)])
def test_functions_are_those_of_exact_arithmetic(ours, theirs, dtype, tolerance):
    # scipy's erfc is off by 6e-14 in its tail.
    edges = [0.0, 1e-30, 1e-9, 0.46874, 0.46876, 1.0, 3.9999, 4.0001, 12.0, 26.0, 1e8, 1e18]
    x = torch.cat([torch.tensor(edges, dtype=dtype), torch.linspace(0, 25, 501, dtype=dtype)])
    x = torch.cat([x, -x])
    run = in_onnx(ours, x)
    (y,) = run(x)
    assert y.dtype == x.numpy().dtype
    with mp.workdps(40):
        expected = np.array([float(theirs(mp.mpf(value))) for value in x.tolist()])
    if ours is torch.special.log_ndtr and dtype == torch.float64:
        tolerance = 3e-13  # x / sqrt(2) is rounded, and a tail at 26 magnifies that by 26^2
    smallest = float(np.finfo(y.dtype).tiny)  # below, numbers lose digits
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=smallest)
    beyond = torch.tensor([torch.inf, -torch.inf, torch.nan], dtype=dtype)
    np.testing.assert_array_equal(run(beyond)[0], ours(beyond).numpy())


def test_the_longer_side_is_numpys():
    x = torch.tensor([0.0, 3.0, -3.0, 1e300, 1e-300, 0.0, torch.nan, 1.0], dtype=torch.float64)
    y = torch.tensor([0.0, 4.0, 4.0, 1e300, 1e-300, -2.0, 1.0, 1e-200], dtype=torch.float64)
    (ours,) = by_onnx(torch.hypot, x, y)
    np.testing.assert_allclose(ours, np.hypot(x.numpy(), y.numpy()), rtol=4e-16)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_roots_and_inverses_are_numpys(size, dtype, tolerance):
    wide = torch.randn(5, 3, size, size + 2, generator=torch.Generator().manual_seed(0), dtype=dtype)
    A = wide @ wide.mT + 0.1 * torch.eye(size, dtype=dtype)
    root, inverse = by_onnx(lambda A: (r := torch.linalg.cholesky(A), torch.cholesky_inverse(r)), A)
    exact = A.double().numpy()
    np.testing.assert_allclose(root, np.linalg.cholesky(exact), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(inverse, np.linalg.inv(exact), rtol=100 * tolerance, atol=100 * tolerance)


def test_what_has_no_root_is_no_number():
    A = torch.diag_embed(torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, -3.0], [-1.0, 2.0, 3.0]]))
    (root,) = in_onnx(torch.linalg.cholesky, torch.eye(3).repeat(2, 1, 1))(A)
    np.testing.assert_allclose(root[0] @ root[0].T, A[0], rtol=1e-6)
    assert np.isnan(root[1]).any()
    assert np.isnan(root[2]).any()


def test_of_equal_values_the_first_stays_first():
    x = torch.tensor([[3.0, 1.0, 3.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0, -1.0]])
    for descending in (False, True):
        values, places = by_onnx(lambda x, d=descending: torch.sort(x, dim=-1, stable=True, descending=d), x)
        expected = torch.sort(x, dim=-1, stable=True, descending=descending)
        assert np.array_equal(values, expected.values)
        assert np.array_equal(places, expected.indices)
