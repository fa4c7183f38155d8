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
# # How much can I lose tomorrow?
# A pooled model of 35 assets on two calendars, its value at risk, and how it did.

# %%
import os

import matplotlib.pyplot as plt
import torch

import qtorch
from qtorch.data import DataModule, Panel, load_sample
from qtorch.risk.plots import fan_chart

epochs = int(os.environ.get("QTORCH_NOTEBOOK_EPOCHS", "15"))
panel = Panel.from_frame(load_sample())
panel

# %% [markdown]
# One model for all of them, trained on what was known before 2021.

# %%
torch.manual_seed(0)
model = qtorch.models.default_forecaster(panel, horizons=(1, 10))
data = DataModule(panel, model.spec, validation_start=None, test_start="2021-01-04")
qtorch.training.fit(model, data, max_epochs=epochs)

# %% [markdown]
# A year of forecasts of Apple's next day, and what came.

# %%
forecast = model.forecast(panel, panel.dates[-251:-1], source=data.source)
probabilities = (0.01, 0.05, 0.25, 0.75, 0.95, 0.99)
apple = panel.assets.index("AAPL")
quantiles = torch.stack([forecast.distribution.icdf(torch.tensor(p))[:, 0, apple] for p in probabilities], -1)
figure, ax = plt.subplots(figsize=(9, 3.4), layout="constrained")
fan_chart(ax, panel.dates[-250:], 100 * quantiles.numpy(), 100 * panel.returns()[-250:, apple].numpy(), probabilities)
ax.set_ylabel("AAPL, return in %")
figure.legend(loc="outside lower center", ncols=5, fontsize=9)
if path := os.environ.get("QTORCH_FIGURE"):
    figure.savefig(path, dpi=110)
plt.show()

# %%
forecast.to_frame([0.99]).query("horizon == 1").groupby("asset")["value_at_risk"].last().sort_values().tail(8)
