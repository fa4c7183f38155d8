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
# # How much can I lose tomorrow?
# 20 US stocks, two indices, crude and twelve euro rates, on two calendars. One model of all of them says tonight what
# tomorrow's return may be; this is its value at risk, and a year of it beside what came.

# %%
import os

import matplotlib.pyplot as plt
import torch

import qtorch
from qtorch.data import Panel, load_sample
from qtorch.risk.plots import fan_chart, legend_above

epochs = int(os.environ.get("QTORCH_NOTEBOOK_EPOCHS", "15"))  # 1 in the tests, on fewer years
panel = Panel.from_frame(load_sample().query(f"date >= '{2018 if epochs == 1 else 1990}'"))
panel

# %% [markdown]
# The default model is a recurrent net over each asset's own sessions, with a skewed Student-t law at its end. It is
# trained on what was known before 2022.

# %%
torch.manual_seed(0)
model = qtorch.models.default_forecaster(panel, horizons=(1, 10))
model.fit(panel, until="2021-12-31", max_epochs=epochs)
print(f"{sum(each.numel() for each in model.parameters()):,} parameters")

# %% [markdown]
# A forecast has a date, a horizon and an asset, and is a distribution: ask it for any quantile. Apple's next day, every
# evening of 2022, and what came:

# %%
forecast = model.predict(panel, panel.dates[-251:-1])
probabilities = (0.01, 0.05, 0.25, 0.75, 0.95, 0.99)
apple = panel.assets.index("AAPL")
quantiles = torch.stack([forecast.distribution.icdf(torch.tensor(p))[:, 0, apple] for p in probabilities], -1)
with plt.rc_context({"font.size": 10, "legend.fontsize": 9, "legend.title_fontsize": 11}):
    figure, ax = plt.subplots(figsize=(9, 3.8), layout="constrained")
    returns = panel.returns()[-250:]
    fan_chart(ax, panel.dates[-250:], 100 * quantiles.numpy(), 100 * returns[:, apple].numpy(), probabilities)
    ax.set_ylabel("return, %")
    legend_above(ax, 5, "Apple: the next day as forecast the evening before, and what came")
if path := os.environ.get("QTORCH_FIGURE"):
    figure.savefig(path, dpi=110)
plt.show()

# %% [markdown]
# ## Can it be believed?
# At 99 % one return in a hundred may be worse than the value at risk. Over all 35 assets, of a year that the model has
# not seen, with what another year may bring: whole weeks are drawn anew, since assets fall together.

# %%
risk = forecast.value_at_risk(0.99)[:, 0]
there = returns.isfinite() & risk.isfinite()
weeks = torch.stack(((returns < -risk) & there, there)).sum(2).double().view(2, 50, 5).sum(2)
share = (weeks[0].sum() / weeks[1].sum()).item()
drawn = weeks[:, torch.randint(50, (5000, 50))].sum(2)
low, high = (drawn[0] / drawn[1]).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
print(f"{share:.2%} of {int(there.sum()):,} returns were beyond their 99 % value at risk")
print(f"95 % interval {low:.2%} to {high:.2%}: 1 % is {'inside' if low <= 0.01 <= high else 'outside'}")

# %% [markdown]
# ## Tonight
# The answer, in per cent of what is held, over one session and ten:

# %%
tonight = model.predict(panel).to_frame([0.99])
table = tonight.pivot(index="asset", columns="horizon", values="value_at_risk").sort_values(1)
(100 * table.iloc[[0, 1, 2, -3, -2, -1]]).round(2).rename_axis(columns="99 % VaR over sessions")
