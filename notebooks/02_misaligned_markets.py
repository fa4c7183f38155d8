# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Whose close was known when?
# Five exchanges with their real calendars: five sets of holidays, five closing times, stocks that are listed, delisted
# and halted. Which cell of the market is a holiday and which a fault? And what did a desk in London know at half past
# four? The market is made for the purpose, so that the true law of every return is known.

# %%
import os

import matplotlib.pyplot as plt
import pandas as pd

from qtorch.data import Panel, State, SyntheticMarket

quick = os.environ.get("QTORCH_NOTEBOOK_EPOCHS") == "1"  # in the tests, on fewer years
market = SyntheticMarket(
    exchanges={"XNYS": 4, "XLON": 3, "XTKS": 3, "XHKG": 2, "XTAE": 2},
    start="2018-06-01" if quick else "2016-01-04",
    end="2020-12-30",
    seed=7,
)
simulation = market.simulate()
panel = Panel.from_frame(simulation.frame)
panel

# %% [markdown]
# ## A holiday or a fault?
# Every cell has a state. Sundays in Tel Aviv, Golden Week in Tokyo and Thanksgiving in New York are on one axis;
# nothing is filled forward.

# %%
report = panel.quality()
with plt.rc_context({"font.size": 10, "legend.fontsize": 9}):
    figure, ax = plt.subplots(figsize=(10, 4.2), layout="constrained")
    report.plot(ax)
if path := os.environ.get("QTORCH_FIGURE"):
    figure.savefig(path, dpi=110)
plt.show()

# %%
report.table[["exchange", "first", "last", "sessions", "missing", "longest_missing_run", "jumps"]].head(6)

# %% [markdown]
# ## What was known at half past four in London?
# A row of a panel holds the closes that were known at its `as_of`. By default that is after the day's last close; a
# desk in London that decides at its own close has Tokyo's close of the same day and New York's of the day before.

# %%
from qtorch.data.calendars import sessions
from qtorch.risk.plots.style import BANDS, INK, LINE, RED, legend_above, tidy

day = pd.Timestamp("2020-11-24")
london = Panel.from_frame(simulation.frame, as_of="16:30 Europe/London")
row = london.row(day)
as_of = london.as_of[row]
known = {}
for exchange in dict.fromkeys(london.exchanges):
    columns = [n for n, code in enumerate(london.exchanges) if code == exchange]
    seen = [london.session_day[row, n].item() for n in columns if london.state[row, n] == State.OBSERVED]
    known[exchange] = pd.Timestamp(max(seen), unit="D") if seen else None
print(f"at {as_of:%H:%M} UTC on {day:%d %B %Y}:")
for exchange, session in known.items():
    print(f"  {exchange}: " + ("nothing new" if session is None else f"the close of {session:%A %d}"))

# %%
with plt.rc_context({"font.size": 10, "legend.fontsize": 9, "legend.title_fontsize": 11}):
    figure, ax = plt.subplots(figsize=(10, 3.2), layout="constrained")
    for height, exchange in enumerate(reversed(known)):
        hours = sessions(exchange, day - pd.Timedelta(days=1), day)
        for session, opened, closed in zip(hours.days, hours.opens, hours.closes, strict=True):
            if session > day:
                continue
            newest = session == known[exchange]
            ax.barh(height, closed - opened, left=opened, height=0.5, color=LINE if newest else BANDS[1])
            middle, shade = opened + (closed - opened) / 2, "white" if newest else INK
            ax.text(middle, height, f"{session:%a}", ha="center", va="center", fontsize=9, color=shade)
    ax.axvline(as_of, color=RED, linewidth=1.4, label="as of 16:30 in London")
    ax.barh(0, pd.Timedelta(0), left=as_of, color=LINE, label="session whose close a row holds")
    ax.barh(0, pd.Timedelta(0), left=as_of, color=BANDS[1], label="another session")
    tidy(ax)
    ax.grid(visible=False)
    ax.set_yticks(range(len(known)), list(reversed(known)))
    ax.xaxis.set_major_formatter(plt.matplotlib.dates.DateFormatter("%H:%M"))
    ax.set_xlabel("UTC")
    legend_above(ax, 3, f"The market around {day:%d %B %Y}")
plt.show()

# %% [markdown]
# ## Features and windows
# Features are causal, skip closed days, and compose: this one ranks the week's returns among the assets that are open.
# A window is an asset's own sessions without holes, or all assets on the last rows, masked where a market was closed.

# %%
from qtorch.data import Features, PanelWindowSource, WindowSource, WindowSpec
from qtorch.data.features import Rank, Return, Rolling, default_features

week = Rank(Rolling(Return(), 5, "mean"))
spec = WindowSpec(context=64, horizons=(1, 5), features=Features((*default_features(), week)))
own = WindowSource(panel, spec)
window = own.gather(own.entries()[:256])
print("an asset's own sessions:", tuple(window.inputs.shape), "to", tuple(window.target.shape))
together = PanelWindowSource(panel, spec, own.table)
window = together.gather(together.entries()[-32:])
share = window.mask.double().mean().item()
print("all assets on a row:", tuple(window.inputs.shape), "to", tuple(window.target.shape), f"{share:.0%} usable")

# %% [markdown]
# Splits keep training's labels out of the test: the longest label of a training window is known before the test begins,
# whatever its exchange's holidays.

# %%
from qtorch.data import WalkForward

for train, test in WalkForward(test_size=150 if quick else 250, n_splits=3, embargo=5).split(own):
    samples = own.samples()
    ends, begins = samples.end[train].max().item(), samples.start[test].min().item()
    print(f"{len(train):6,} training windows, labels known by row {ends}; {len(test):,} test windows from row {begins}")

# %% [markdown]
# ## The answer
# What a cell is, and when it was known, stands in the panel; a model need not guess. And since this market's truth is
# known, forecasts can be held against it: the share of returns inside the true 90 % band is

# %%
pit = simulation.pit()
pit = pit[pit.isfinite()]
coverage = ((pit > 0.05) & (pit < 0.95)).double().mean().item()
print(f"{coverage:.1%} of {len(pit):,} returns")
