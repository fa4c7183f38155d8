# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Markets that do not line up
# A market made for the purpose: five exchanges with their real calendars, listings and delistings, halts and holes, and
# the true distribution of every return.

# %%
import os

import matplotlib.pyplot as plt
import torch

from qtorch.data import (
    Features,
    Panel,
    PanelWindowSource,
    State,
    SyntheticMarket,
    WalkForward,
    WindowSource,
    WindowSpec,
)
from qtorch.data.features import Ewma, MonthEnd, RangeRatio, Rank, Return, Rolling, WithIndicator, default_features

market = SyntheticMarket(
    exchanges={"XNYS": 4, "XLON": 3, "XTKS": 3, "XHKG": 2, "XTAE": 2}, start="2016-01-04", end="2020-12-30", seed=7
)
simulation = market.simulate()
panel = Panel.from_frame(simulation.frame)
panel

# %% [markdown]
# ## What is a holiday, what is a fault?
# Every cell has a state. Sundays in Tel Aviv, Golden Week in Tokyo and New York's Thanksgiving are on one axis.

# %%
report = panel.quality()
figure, ax = plt.subplots(figsize=(9, 3.8), layout="constrained")
report.plot(ax)
if path := os.environ.get("QTORCH_FIGURE"):
    figure.savefig(path, dpi=110)
plt.show()

# %%
report.table[["exchange", "first", "last", "sessions", "missing", "longest_missing_run", "jumps"]].head(8)

# %% [markdown]
# ## What was known at half past four in London?
# Then New York's last close is yesterday's, and Tokyo's is today's. The day after Thanksgiving New York closes early,
# but not early enough.

# %%
london = Panel.from_frame(simulation.frame, as_of="16:30 Europe/London")
for exchange in ("XNYS", "XTKS", "XLON"):
    n = london.exchanges.index(exchange)
    t = london.row("2020-11-27")
    if london.state[t, n] == State.OBSERVED:
        session = torch.tensor(int(london.session_day[t, n])).numpy().astype("M8[D]")
        print(f"{exchange}: the close of {session}")
    else:
        print(f"{exchange}: {State(int(london.state[t, n])).name.lower()}, nothing new since the day before")

# %% [markdown]
# ## Features compose
# Each is a causal transform of the panel, declares its look-back, and skips closed days. This one ranks the week's
# returns among the assets that are open.

# %%
week = Rank(Rolling(Return(), 5, "mean"))
print(week.names, "look-back", week.lookback)
block = week(panel)
print(block.values.shape, f"{block.mask.double().mean():.0%} there")

features = Features((*default_features(), week, Ewma(Return(), 0.9), MonthEnd(), WithIndicator(RangeRatio())))
spec = WindowSpec(context=64, horizons=(1, 5), features=features)

# %% [markdown]
# ## Windows, of one asset or of all
# An asset's own sessions, without holes; or all assets on the last rows, masked where a market was closed.

# %%
own = WindowSource(panel, spec)
window = own.gather(own.entries()[:256])
print("asset layout", tuple(window.inputs.shape), tuple(window.target.shape))
together = PanelWindowSource(panel, spec, own.table)
window = together.gather(together.entries()[-32:])
print(
    "panel layout", tuple(window.inputs.shape), tuple(window.target.shape), f"{window.mask.double().mean():.0%} usable"
)

# %% [markdown]
# ## Splits that do not leak
# A training window's longest label is known before the test begins, whatever its exchange's holidays.

# %%
for train, test in WalkForward(test_size=250, n_splits=3, embargo=5).split(own):
    samples = own.samples()
    print(f"{len(train):6,} training windows, labels known by row {samples.end[train].max()}; test from row ", end="")
    print(f"{samples.start[test].min()}, {len(test):,} windows")

# %% [markdown]
# ## A market with known truth
# The share of returns inside the true 90 % band is 90 %: forecasts can be held against this.

# %%
pit = simulation.pit()
pit = pit[pit.isfinite()]
coverage = ((pit > 0.05) & (pit < 0.95)).double().mean().item()
print(f"{coverage:.1%} of {len(pit):,} returns")
