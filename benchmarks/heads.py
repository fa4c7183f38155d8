"""The default encoder with each univariate head, on years before any test.

The sample's 20 stocks up to 2014: the default forecaster's windows, encoder, schedule and hidden inputs, trained by the
log score on targets known by the end of 2011, a few epochs from each seed, and scored on the sessions of 2012 to 2014
at a horizon of one session. Log scores in nats of returns in per cent; CRPS in per cent, on every tenth session, since
some laws have none in closed form; FZ0 losses of returns in per cent. Mean over seeds of single models; t is of Diebold
and Mariano over all assets, of the mean loss of the seeds against that of the first head.

Usage: PYTHONPATH=. python benchmarks/heads.py [HEADS] [--start 1995-01-01] [--epochs 8] [--seeds 0 1]
"""

import argparse
import time

import numpy as np
import torch
from protocol import market
from torch import Tensor

from qtorch import Forecaster, heads
from qtorch.data import DataModule, Panel, WindowSource
from qtorch.distributions import take
from qtorch.models.defaults import default_encoder, default_schedule, default_windows
from qtorch.risk import crps, expected_shortfall, fz0, value_at_risk
from qtorch.risk.backtests import diebold_mariano
from qtorch.training import HideInputs, fit

KNOWN, FIRST, LAST = "2011-12-30", "2012-01-03", "2014-12-31"
HEADS = (
    "SkewedStudentT",
    "StudentT",
    "Normal",
    "HansenSkewedT",
    "JohnsonSU",
    "SplicedTails",
    "FlowHead",
    "Mixture",
    "NormalInverseGaussian",
)


def trained(name: str, panel: Panel, source: WindowSource, epochs: int, seed: int) -> Forecaster:
    """A forecaster with one of the heads."""
    torch.manual_seed(seed)
    spec = source.spec
    encoder = default_encoder(spec)
    head = getattr(heads, name)(encoder.out_features, spec.horizons)
    model = Forecaster(encoder, head, spec, schedule=default_schedule(), augmentation=HideInputs.by_kind(spec))
    data = DataModule(panel, source=source, validation_start=None, until=KNOWN, seed=seed)
    fit(model, data, max_epochs=epochs, seed=seed, accelerator="cpu")
    return model


def scores(model: Forecaster, panel: Panel, source: WindowSource) -> dict[str, Tensor]:
    """Losses by name, `[D, N]`, NaN where there is none."""
    rows = np.flatnonzero((panel.dates >= FIRST) & (panel.dates <= LAST)) - 1
    y = 100 * panel.returns()[rows + 1]
    with torch.no_grad():
        forecast = model.forecast(panel, panel.dates[rows], source=source)
        law, some = take(forecast.distribution, (slice(None), 0)), slice(None, None, 10)
        there = forecast.mask & y.isfinite()
        inside = torch.where(there, y, 0.0)
        found = {
            "log score": np.log(100.0) - law.log_prob(inside / 100),
            "CRPS": torch.full_like(y, torch.nan),
        }
        found["CRPS"][some] = 100 * crps(take(law, some), inside[some] / 100).double()
        for level in (0.975, 0.99):
            var, es = 100 * value_at_risk(law, level).double(), 100 * expected_shortfall(law, level).double()
            found[f"FZ0 {level:.1%}"] = fz0(inside, var, es, level)
            found[f"beyond {level:.1%}"] = (inside < -var).double()
    return {key: torch.where(there, value.double(), torch.nan) for key, value in found.items()}


def main() -> None:
    settings = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings.add_argument("heads", nargs="*", default=HEADS)
    settings.add_argument("--start", default="1995-01-01")
    settings.add_argument("--epochs", type=int, default=8)
    settings.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = settings.parse_args()
    torch.set_num_threads(1)
    frame = market(None, LAST)
    panel = Panel.from_frame(frame[frame["date"] >= args.start])
    source = WindowSource(panel, default_windows(panel, horizons=(1,)))
    first: dict[str, Tensor] | None = None
    for name in args.heads or HEADS:
        start = time.process_time()
        models = [trained(name, panel, source, args.epochs, seed) for seed in args.seeds]
        fitted = time.process_time()
        each = [scores(model, panel, source) for model in models]
        mean = {key: torch.stack([part[key] for part in each]).mean(0) for key in each[0]}
        first = mean if first is None else first
        parts = []
        for key, loss in mean.items():
            value = loss.nanmean().item()
            t = "" if key.startswith("beyond") else _against(loss - first[key])
            parts.append(f"{key} {value:.2%}" if key.startswith("beyond") else f"{key} {value:.4f}{t}")
        took = (
            f"fit {(fitted - start) / len(models):.0f} s, scored {(time.process_time() - fitted) / len(models):.0f} s"
        )
        print(f"{name:<22} {'  '.join(parts)}  ({took})", flush=True)


def _against(difference: Tensor) -> str:
    if (difference.nan_to_num() == 0).all():
        return ""
    return f" (t {diebold_mariano(difference, panel=True).statistic.item():+.1f})"


if __name__ == "__main__":
    main()
