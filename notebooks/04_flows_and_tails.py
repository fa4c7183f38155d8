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
# # How far out do the tails go?
# Under a normal law a day of six volatilities down comes once in four million years. Which law says something that
# holds? And when such a day comes, do all stocks fall together?
#
# Returns of 20 US stocks, in units of the volatility that was forecast the evening before, so that calm and wild years
# count alike. Laws are fitted to those before 2010 and judged on those since.

# %%
import os

import matplotlib.pyplot as plt
import pandas as pd
import torch

from qtorch.data import Panel, WindowSpec, load_sample
from qtorch.models import RiskMetrics

epochs = int(os.environ.get("QTORCH_NOTEBOOK_EPOCHS", "15"))  # 1 in the tests
stocks = load_sample().query("date >= '2002' and exchange == 'XNYS' and asset not in ['NASDAQ', 'SP500', 'WTI']")
panel = Panel.from_frame(stocks)
forecast = RiskMetrics(spec=WindowSpec(horizons=(1,))).forecast(panel, panel.dates[100:-1])
scores = (panel.returns()[101:] / forecast.volatility[:, 0]).float()
days = panel.dates[101:][scores.isfinite().all(1).numpy()]
scores = scores[scores.isfinite().all(1)]
past, since = scores[days < "2010"], scores[days >= "2010"]
print(
    f"{past.numel():,} returns to fit, {since.numel():,} to judge; the worst since 2010 {since.min():.1f} volatilities"
)

# %% [markdown]
# ## The index of each tail
# Far out P(X < -x) goes as x to the power -1 / xi. Extreme-value theory estimates xi of the largest losses and gains
# and assumes no law for the rest. A normal law's is 0, that of Student's t one over its degrees of freedom.

# %%
from qtorch.distributions.tail_index import tail_index

for name, values in {"losses": -past, "gains": past}.items():
    xi = tail_index(values.flatten()).item()
    print(f"{name}: xi {xi:.2f}, as of Student's t with {1 / xi:.1f} degrees of freedom")

# %% [markdown]
# ## Five laws
# A head gives a network its law. Here the network is a constant, so that each head is one law, fitted by maximum
# likelihood: a normal, Student's t, one with skew, one with generalised Pareto tails spliced on, and a flow, a spline
# of any shape with power tails.

# %%
from qtorch import heads


def fitted(head):
    optimizer, constant = torch.optim.Adam(head.parameters(), lr=0.05), torch.ones(1)
    for _ in range(40 + 10 * epochs):
        optimizer.zero_grad()
        loss = -head(constant).log_prob(past.view(-1, 1)).mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return head(constant)


laws = {
    "normal": fitted(heads.Normal(1, (1,))),
    "Student-t": fitted(heads.StudentT(1, (1,))),
    "skewed t": fitted(heads.SkewedStudentT(1, (1,))),
    "spliced": fitted(heads.SplicedTails(1, (1,))),
    "flow": fitted(heads.FlowHead(1, (1,))),
}

# %% [markdown]
# How often was the quantile of a law passed since 2010, in units of how often it says? One is right, two is a risk
# number that was passed twice as often as promised.

# %%
rows = {}
for name, law in laws.items():
    passed = {p: (since < law.icdf(torch.tensor(p))).double().mean().item() / p for p in (0.05, 0.01, 0.001, 0.0001)}
    score = {"log score": -law.log_prob(since.view(-1, 1)).mean().item()}
    rows[name] = {f"{p:.2%}": ratio for p, ratio in passed.items()} | score
table = pd.DataFrame(rows).T
table.round(3)

# %% [markdown]
# Far out these are few losses, and several of them on one day. So next to what came stands what may come in as many
# days, resampled in blocks of 20 of them; and next to the best log score, whether the others are worse by more than
# chance (Diebold and Mariano's test, what falls on one day counted once, p-values corrected for asking so often):

# %%
from qtorch.risk.backtests import benjamini_hochberg, diebold_mariano


def interval(daily, block=20, draws=4000):
    blocks = torch.stack([part.sum() for part in daily.double().split(block)])
    drawn = blocks[torch.randint(len(blocks), (draws, len(blocks)), generator=torch.Generator().manual_seed(0))].sum(1)
    return drawn.quantile(torch.tensor([0.025, 0.975]).double()).tolist()


def ties(losses):
    """Of losses by name, in words: the lowest, its lead, and those that are not told apart from it at 5 %."""
    best, *rivals = sorted(losses, key=lambda name: losses[name].mean())
    lead = (losses[rivals[0]] - losses[best]).mean().item()
    p = torch.stack([diebold_mariano((losses[name] - losses[best]).double(), panel=True).p_value for name in rivals])
    tied = [name for name, each in zip(rivals, benjamini_hochberg(p).tolist(), strict=True) if each >= 0.05]
    told = f"best log score: {best}, {lead:.4f} before {rivals[0]}"
    return f"{told}; not told apart from it: {', '.join(tied) or 'none'}"


said = 0.0001 * since.numel()
far_rows = {}
for name, law in laws.items():
    daily = (since < law.icdf(torch.tensor(0.0001))).sum(1)
    low, high = interval(daily)
    far_rows[name] = {"came": int(daily.sum()), "said": said, "from": low, "to": high, "holds": low <= said <= high}
far_table = pd.DataFrame(far_rows).T
print(ties({name: -law.log_prob(since.unsqueeze(-1)).view_as(since) for name, law in laws.items()}))
far_table

# %% [markdown]
# ## Together
# What a portfolio can lose is a matter of the joint law. Three of five stocks: normals under a Gaussian copula;
# Student's t under a Student-t copula, in which extremes come together; and a neural spline flow, whose tail indices
# start at extreme-value estimates and are then learned with all the rest.

# %%
from qtorch.distributions import JointDistribution
from qtorch.models.flows import NeuralSplineFlow
from qtorch.risk import fit_copula

names = ["AAPL", "JPM", "KO", "UNH", "XOM"]
five = [panel.assets.index(name) for name in names]
before, after = past[:, five], since[:, five]
joints = {}
for name, gaussian in {"normal": True, "Student-t": False}.items():
    copula = fit_copula(laws[name].cdf(before.view(-1, 1)).view_as(before).double(), factors=2, gaussian=gaussian)
    joints[f"{name} copula"] = JointDistribution(laws[name].expand((5,)), copula)

torch.manual_seed(0)
flow = NeuralSplineFlow(features=5, transforms=2, hidden=[16], bins=4)
flow.initialise(before)
optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
for _ in range(10 * epochs):
    batch = before[torch.randint(len(before), (1024,))]
    optimizer.zero_grad()
    loss = -flow().log_prob(batch).mean()
    loss.backward()
    optimizer.step()
joints["neural spline flow"] = flow()

# %% [markdown]
# Judged by the log score of each day (the lower the better), by how often all five together lost more than the 99 and
# 99.9 % value at risk, equal weights, again in units of what each law says, and by the years between days on which
# three of five or more lose three volatilities:

# %%
torch.manual_seed(0)
draws, daily_scores, rows = {}, {}, {}
for name, law in joints.items():
    with torch.no_grad():
        draws[name] = law.sample((20_000 * min(epochs, 10),))
        daily_scores[name] = -law.log_prob(after)
    book = draws[name].mean(1)
    beyond = {f"{p:.1%}": ((after.mean(1) < book.quantile(p)).double().mean() / p).item() for p in (0.01, 0.001)}
    together = ((draws[name] < -3).sum(1) >= 3).double().mean().item()
    rows[name] = (
        {"log score": daily_scores[name].mean().item()} | beyond | {"years between crashes": 1 / (250 * together)}
    )
crash = (after < -3).sum(1) >= 3
rows["seen since 2010"] = {"1.0%": 1.0, "0.1%": 1.0, "years between crashes": len(crash) / (250 * crash.sum().item())}
joint_table = pd.DataFrame(rows).T
joint_table.round(2)

# %% [markdown]
# Crashes come in clusters, and so the years between them are known badly:

# %%
low, high = interval(crash)
crashes = days[days >= "2010"][crash.numpy()]
expected = len(crash) / (250 * joint_table["years between crashes"])
print(f"{len(crashes)} days in {len(crashes.to_period('M').unique())} months, 95 % interval {low:.0f} to {high:.0f}")
for name in joints:
    print(f"{name}: {expected[name]:.1f} such days, {'inside' if low <= expected[name] <= high else 'outside'}")
print(ties(daily_scores))

# %% [markdown]
# ## Seen
# Above, how often a loss is larger than x: dots are what came since 2010, lines what the laws said, of one stock and of
# the five together. Below, JPMorgan and Exxon on as many days as have been seen, and as drawn from two of the laws.

# %%
from qtorch.risk.plots.style import AMBER, DOT, GRID, INK, LINE, RED, legend_above, tidy

shades = {"normal": RED, "Student-t": AMBER, "skewed t": "#8a6bb0", "spliced": "#3f9c86", "flow": LINE}


def draw_seen(ax, losses, largest):
    ordered = losses.sort(descending=True).values
    share = torch.arange(1, len(ordered) + 1) / len(ordered)
    shown = ordered > 1
    ax.scatter(ordered[shown], share[shown], s=9, color=DOT, linewidth=0, label="seen since 2010", zorder=3)
    ax.set(
        xscale="log", yscale="log", xlim=(1, largest), ylim=(0.4 / len(ordered), 0.3), xlabel="loss, in volatilities"
    )
    ax.xaxis.set_major_locator(plt.FixedLocator([1, 2, 3, 5, 10]))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    tidy(ax)


def draw_pairs(ax, pairs, colour, title):
    ax.scatter(*pairs[:, [1, 4]].T, s=5, color=colour, alpha=0.5, linewidth=0)
    ticks = [-8, -4, 0, 4, 8]
    ax.set(xlim=(-8, 8), ylim=(-8, 8), xticks=ticks, yticks=ticks, xlabel="JPM", ylabel="XOM")
    tidy(ax)
    ax.grid(axis="x", color=GRID, linewidth=0.6)
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)


with plt.rc_context({"font.size": 10, "legend.fontsize": 9, "legend.title_fontsize": 11}):
    figure, axes = plt.subplot_mosaic("AAABBB;SSGGFF", figsize=(12.73, 9.5), layout="constrained")
    figure.get_layout_engine().set(hspace=0.06, wspace=0.04)
    x = torch.logspace(0, 1.2, 200)
    draw_seen(axes["A"], -since.flatten(), 15)
    for name, law in laws.items():
        axes["A"].plot(x, law.cdf(-x.view(-1, 1)).flatten(), color=shades[name], linewidth=1.4, label=name)
    legend_above(axes["A"], 3, "One stock: how often a loss is larger")
    draw_seen(axes["B"], -after.mean(1), 6)
    for (name, drawn), colour in zip(draws.items(), (RED, AMBER, LINE), strict=True):
        ordered = (-drawn.mean(1)).sort(descending=True).values
        share = torch.arange(1, len(ordered) + 1) / len(ordered)
        some = slice(4, len(ordered) // 3)
        axes["B"].plot(ordered[some], share[some], color=colour, linewidth=1.4, label=name)
    legend_above(axes["B"], 2, "Five stocks with equal weights")
    draw_pairs(axes["S"], after, DOT, "Seen since 2010")
    draw_pairs(axes["G"], draws["normal copula"][: len(after)], RED, "Drawn: normal, Gaussian copula")
    draw_pairs(axes["F"], draws["neural spline flow"][: len(after)], LINE, "Drawn: neural spline flow")
plt.show()

# %% [markdown]
# ## The answer

# %%
holding = [name for name in laws if far_table.loc[name, "holds"]]
inside = [name for name in joints if low <= expected[name] <= high]
print(
    f"What the normal law says of one day in ten thousand came {table.loc['normal', '0.01%']:.0f} times as often. What "
    f"came fits, as far as so few losses tell: {', '.join(holding) or 'none'}."
)
print(
    f"Three or more of the five crashed together on {len(crashes)} days. As often, as far as so few days tell: "
    f"{', '.join(inside) or 'none'}; the normal copula says {expected['normal copula']:.1f}."
)
