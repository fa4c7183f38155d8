import pytest
import torch

from qtorch.data import DataModule, Panel, PanelWindowSource, WindowSource, WindowSpec
from tests.conftest import make_prices

SPEC = WindowSpec(context=16, horizons=(1, 5))


@pytest.mark.gpu
def test_windows_of_a_panel_on_the_device_are_those_of_the_processor():
    panel = Panel.from_frame(make_prices({"AAA": "XNYS", "EEE": "XECB", "TTT": "XTKS"}, "2017-01-04", "2019-12-30"))
    for kind in (WindowSource, PanelWindowSource):
        here, there = kind(panel, SPEC), kind(panel.to("cuda"), SPEC)
        entries = here.entries()
        assert torch.equal(entries, there.entries().cpu())
        a, b = here.gather(entries, known_by=500), there.gather(entries.cuda(), known_by=500)
        for name in ("inputs", "mask", "target", "target_mask", "scale", "asset_index", "row_index"):
            assert getattr(b, name).is_cuda
            torch.testing.assert_close(getattr(a, name), getattr(b, name).cpu())
    data = DataModule(panel.to("cuda"), SPEC, validation_start="2019-06-03")
    assert next(iter(data.train_dataloader())).inputs.is_cuda
