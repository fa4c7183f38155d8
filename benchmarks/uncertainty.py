"""How well methods know how sure they are, as regression: their densities on data that ships with packages.

Data: scikit-learn's diabetes (442 rows, random splits into 68, 12 and 20 %), and the daily returns in arch of the S&P
500 and the Nasdaq, 1999 to 2018: five blocks of two years from 2009, each forecast by a network of the years before, of
which the last fifth stops the training; inputs are past returns, volatilities and ranges. Every method has two layers
of 64 SiLU, AdamW at 2e-3 with a decay of 1e-4 (of matrices without a prior), gradients clipped at 5, and stops early.

A network here is an encoder and a head, without panel or `Forecaster`: `fit` is the training loop of all methods. A
head with `penalty()` has that over the number of rows in its loss, and a `Posterior` is scored draw by draw while it is
trained. Members of an ensemble are trained in one network, each clipped and stopped by itself. Laplace's approximation,
SWAG and SGLD start at the network of their law's `MLE`, whose time is part of theirs. Scales of priors are those of the
highest evidence, or bound on it, of the training rows, where a method's name does not give one. GARCH-t, of markets
alone, is arch's, estimated once for each block on all days before it, without seeds.

Scores: log score (NLL), CRPS, coverage of the 90 % interval, share below the 1 % quantile, seconds of processor time of
fit and of an epoch; differences in NLL to the Student-t network's, paired by split and seed, with standard errors over
the splits, each the mean of its seeds. Diabetes in standard deviations, markets in per cent. Peers run where the
interpreter has them.

Usage: PYTHONPATH=. python benchmarks/uncertainty.py [METHODS] [--data sp500] [--seeds 0 1] [--splits 0 1] [--peers]
       [--csv PATH] [--tables PATH]
"""

import argparse
import importlib.util
import itertools
from pathlib import Path

import pandas as pd
import torch

from benchmarks.regression.data import DATA, SERIES
from benchmarks.regression.garch import garch
from benchmarks.regression.heads import NormalRegression, StudentTRegression
from benchmarks.regression.last_layer import distance_aware, langevin, laplace, laplace_members
from benchmarks.regression.method import Method
from benchmarks.regression.peers import laplace_torch, vbll_layer
from benchmarks.regression.points import dropped, members, point
from benchmarks.regression.scores import scores, table
from benchmarks.regression.swag import swag
from benchmarks.regression.variational import variational, variational_members

LAWS = {"t": StudentTRegression, "normal": NormalRegression}
BY_LAW = {
    "MLE": point,
    "five members": members,
    "variational": lambda head: variational(head, None),
    "variational, prior 1": lambda head: variational(head, 1.0),
    "five variational members": variational_members,
    "Laplace": laplace,
    "five Laplace members": laplace_members,
    "SWAG": swag,
    "SGLD": langevin,
    "dropout": dropped,
    "SNGP": distance_aware,
}
OURS = {f"{law} {name}": Method(make(head)) for law, head in LAWS.items() for name, make in BY_LAW.items()}
PEERS = {"laplace-torch, last layer": Method(laplace_torch, "laplace")} | {
    f"vbll {kind}": Method(vbll_layer(kind), "vbll") for kind in ("Regression", "tRegression", "HetRegression")
}
METHODS = OURS | {"GARCH-t": Method(garch, "arch", of_series=True)} | PEERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help=f"all of ours by default; of {', '.join(METHODS)}")
    parser.add_argument("--data", nargs="+", choices=DATA, default=["diabetes", "sp500"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--splits", type=int, nargs="+", help="which of each data set, from 0; all by default")
    parser.add_argument("--peers", action="store_true", help="other libraries too")
    parser.add_argument("--csv", type=Path, help="where to write every run")
    parser.add_argument("--tables", type=Path, nargs="+", help="such files, whose tables are shown; nothing is run")
    args = parser.parse_args()
    if args.tables is not None:
        show(pd.concat(map(pd.read_csv, args.tables), ignore_index=True))
        return
    if unknown := set(args.methods) - METHODS.keys():
        parser.error(f"nothing is called {', '.join(sorted(unknown))}.")
    names = args.methods or [n for n in METHODS if args.peers or n not in PEERS]
    for name in [n for n in names if importlib.util.find_spec(METHODS[n].needs) is None]:
        print(f"{name}: skipped, there is no {METHODS[name].needs}")
        names.remove(name)
    torch.set_num_threads(1)
    runs = []
    for data in args.data:
        splits = list(DATA[data]())
        asked = [n for n in names if data in SERIES or not METHODS[n].of_series]
        for split in splits if args.splits is None else [splits[k] for k in args.splits]:
            for seed, name in itertools.product(args.seeds, asked):
                fitted = METHODS[name].fit(split, seed)
                with torch.no_grad():
                    result = scores(fitted.predict(split.test.x), split)
                one = {"data": data, "split": split.name, "method": name, "seed": seed}
                runs.append(one | {"seconds": fitted.seconds, "epochs": fitted.epochs} | result)
                print(f"{split.name}, seed {seed}: {name} {result['nll']:.4f}, {fitted.seconds:.1f} s", flush=True)
                if args.csv is not None:
                    pd.DataFrame(runs).to_csv(args.csv, index=False)
    show(pd.DataFrame(runs))


def show(runs: pd.DataFrame) -> None:
    for data, own in runs.groupby("data", sort=False):
        print(f"\n{data}\n\n{table(own, 't MLE')}", flush=True)


if __name__ == "__main__":
    main()
