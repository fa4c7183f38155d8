import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from qtorch.data import Panel
from qtorch.data.plots import ALL_MISSING, CLOSED, MISSING, OBSERVED, STRAY, UNLISTED, state_map
from qtorch.data.quality import quality
from tests.conftest import make_prices


@pytest.fixture
def ax():
    return Figure(figsize=(8, 4), layout="constrained").subplots()


def share_red(image: np.ndarray) -> np.ndarray:
    """Where a picture is between the colours of one missing cell and of nothing but missing ones."""
    low, high = np.array([to_rgb(MISSING), to_rgb(ALL_MISSING)]).T.min(1), np.array([to_rgb(MISSING)]).max(0)
    return ((image >= low - 1e-9) & (image <= high + 1e-9)).all(-1)


def many(N: int, years: int = 1) -> pd.DataFrame:
    """Closes of N assets on three exchanges, the most of them in New York."""
    exchanges = make_prices({code: code for code in ("XTKS", "XLON", "XNYS")}, "2018-01-04", f"{2017 + years}-12-28")
    codes = ["XTKS" if i < 2 else "XLON" if i < N // 3 else "XNYS" for i in range(N)]
    assets = [exchanges[exchanges["asset"] == code].assign(asset=f"A{i:03d}") for i, code in enumerate(codes)]
    return pd.concat(assets, ignore_index=True)


def test_each_state_has_its_colour(ax, prices):
    halt = (prices["asset"] == "AAA") & (prices["date"] == "2019-07-10")
    late = (prices["asset"] == "BBB") & (prices["date"] < "2019-06-10")
    holiday = prices[(prices["asset"] == "BBB") & (prices["date"] == "2019-07-03")]
    holiday = holiday.assign(date=pd.Timestamp("2019-07-04"))
    panel = Panel.from_frame(pd.concat([prices[~halt & ~late], holiday]).sort_values(["asset", "date"]))
    state_map(ax, panel)
    (image,) = (each.get_array() for each in ax.images)
    assert image.shape == (3, len(panel.dates), 3)
    cells = {
        (0, "2019-06-05"): OBSERVED,
        (0, "2019-07-04"): CLOSED,
        (0, "2019-07-10"): ALL_MISSING,
        (1, "2019-06-05"): UNLISTED,
        (1, "2019-07-04"): STRAY,
        (2, "2019-07-04"): OBSERVED,
    }
    for (n, date), colour in cells.items():
        np.testing.assert_allclose(image[n, panel.row(date)], to_rgb(colour), atol=1e-9)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["observed", "closed", "not listed", "missing: 1", "price on a closed day: 1"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["AAA", "BBB", "EEE"]


def test_a_single_missing_cell_among_thousands_is_red(ax):
    ax.get_figure().set_size_inches(8, 1.8)
    frame = many(60, years=3)
    frame = frame[~((frame["asset"] == "A040") & (frame["date"] == "2019-07-10"))]
    panel = Panel.from_frame(frame)
    state_map(ax, panel)
    (image,) = (each.get_array() for each in ax.images)
    assert image.shape[0] < len(panel.assets)
    assert image.shape[1] < len(panel.dates)
    y, x = np.nonzero(share_red(image))
    assert (len(y), len(x)) == (1, 1)
    left, right, bottom, top = ax.images[0].get_extent()
    rows, columns = (bottom - top) / image.shape[0], (right - left) / image.shape[1]  # assets and days per dot
    assert abs(left + (x[0] + 0.5) * columns - panel.row("2019-07-10")) <= columns
    assert abs(top + (y[0] + 0.5) * rows - 40) <= rows
    assert "missing: 1" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_assets_stand_by_exchange(ax):
    frame = make_prices({"A": "XNYS", "B": "XTKS", "C": "XNYS", "D": "XTKS"}, "2019-06-03", "2019-07-31")
    frame = frame[~((frame["asset"] == "C") & (frame["date"] == "2019-06-12"))]
    state_map(ax, Panel.from_frame(frame))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "C", "B", "D"]
    image = ax.images[0].get_array()
    assert share_red(image).any(axis=1).tolist() == [False, True, False, False]
    texts = {text.get_text(): text.xy[1] for text in ax.texts}
    assert (texts["XNYS"], texts["XTKS"], texts["1"]) == (0.5, 2.5, 1)


@pytest.mark.parametrize("N", [1, 12, 24, 90])
def test_no_label_overlaps_another_or_leaves_the_figure(ax, N):
    state_map(ax, Panel.from_frame(many(N)))
    figure = ax.get_figure()
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in (*ax.get_yticklabels(), *ax.get_xticklabels(), *ax.texts)]
    boxes.append(ax.get_legend().get_window_extent())
    boxes = [box for box in boxes if box.width > 1]
    assert len(boxes) > 4
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        for other in boxes[i + 1 :]:
            apart = box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0
            assert apart


def test_dates_stand_at_their_rows(ax, prices):
    panel = Panel.from_frame(prices)
    state_map(ax, panel)
    ticks = dict(zip((text.get_text() for text in ax.get_xticklabels()), ax.get_xticks(), strict=True))
    assert ticks["Jul"] == panel.row("2019-07-01")
    assert ax.get_xlabel().startswith("2019")


@pytest.mark.parametrize("days", [1, 2, 7])
def test_a_short_panel_can_be_drawn(ax, days, prices):
    state_map(ax, Panel.from_frame(prices[prices["asset"] == "AAA"].head(days)))
    assert ax.images[0].get_array().shape == (1, days, 3)


def test_a_report_draws_its_panel(ax, prices):
    report = quality(Panel.from_frame(prices))
    assert report.plot(ax) is ax
    import matplotlib.pyplot as plt

    made = report.plot()
    assert len(made.images) == 1
    plt.close(made.get_figure())
