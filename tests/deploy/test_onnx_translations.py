"""Operations that ONNX does not have, written by others, against independent numbers."""

import io

import numpy as np
import pytest
import torch
from scipy.special import ndtri

pytestmark = pytest.mark.deploy


class Quantile(torch.nn.Module):
    def forward(self, p: torch.Tensor) -> torch.Tensor:
        return torch.special.ndtri(p)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-15), (torch.float32, 1e-6)])
def test_the_normal_quantile_is_scipys(dtype, tolerance):
    import onnxruntime

    from qtorch.deploy.onnx_translations import TRANSLATIONS

    p = torch.tensor(
        [0.0, 1e-300, 1e-40, 1e-20, 1e-9, 1e-3, 0.02, 0.0749, 0.0751, 0.3, 0.5, 0.7, 0.9251, 0.99999, 1.0], dtype=dtype
    )
    p = torch.cat([p, torch.linspace(1e-4, 0.999, 500, dtype=dtype)])
    made = torch.onnx.export(
        Quantile(), (p,), dynamo=True, opset_version=20, custom_translation_table=TRANSLATIONS, verbose=False
    )
    content = io.BytesIO()
    made.save(content)
    session = onnxruntime.InferenceSession(content.getvalue(), providers=["CPUExecutionProvider"])
    (ours,) = session.run(None, {session.get_inputs()[0].name: p.numpy()})
    expected = ndtri(p.numpy().astype(float))
    assert ours.dtype == p.numpy().dtype
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance)
    (beyond,) = session.run(None, {session.get_inputs()[0].name: torch.full_like(p, 1.5).numpy()})
    assert np.isnan(beyond).all()
