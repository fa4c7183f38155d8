"""Value at risk and expected shortfall over ten sessions, out of sample, against what desks scale or simulate.

As benchmarks/risk_accuracy.py, but over the next ten of an asset's own sessions, one forecast each session: the
default forecaster, trained once, alone and pooled with GARCH, beside GARCH(1,1) with Student-t errors and the square
root of time, and filtered historical simulation of GJR-GARCH paths, both refitted every 21 rows. Consecutive returns
overlap, which the Diebold-Mariano t takes into account; it is against the square root of time.

Usage: python benchmarks/risk_horizon.py [--data FILE] [--until 2016-12-30] [--seeds 0 1 2] [--horizon 10]
"""

from dataclasses import replace

import numpy as np
from protocol import SESSIONS, Board, in_pieces, in_spring, market, parser, tails
from risk_accuracy import trained

from qtorch.data import Panel, WindowSource, WindowSpec
from qtorch.data.windows import outcomes
from qtorch.distributions import Affine
from qtorch.models import FilteredHistoricalSimulation, Garch, default_ensemble, default_windows
from qtorch.training import mixed


def main() -> None:
    settings = parser(__doc__)
    settings.add_argument("--horizon", type=int, default=10, help="in own sessions")
    args = settings.parse_args()
    h = args.horizon
    panel = Panel.from_frame(market(args.data, args.until))
    source = WindowSource(panel, default_windows(panel, horizons=(1, h)))
    sessions = panel.returns().isfinite()
    first = int((sessions & (sessions.flip(0).cumsum(0).flip(0) <= SESSIONS)).any(1).int().argmax())
    asked = np.arange(first - 1, len(panel.dates) - 1)
    y = 100 * outcomes(source, asked)[0][:, 1].double()
    dates = panel.dates[asked]
    print(f"{len(panel.assets)} assets, {h} sessions from {dates[0]:%Y-%m-%d} on, to {panel.dates[-1]:%Y-%m-%d}")

    board = Board(y, in_spring(dates), overlap=h)
    day, far = WindowSpec(horizons=(1,)), WindowSpec(horizons=(h,))
    one = Garch(errors="student_t", spec=day).forecast(panel, dates)
    scaled = replace(one, distribution=Affine(one.distribution, 0.0, h**0.5))
    board.add("GARCH-t, root time", tails(scaled))
    gjr = Garch(o=1, errors="skewed_t", spec=far)
    board.add("GJR-FHS paths", in_pieces(FilteredHistoricalSimulation(gjr, spec=far), panel, asked))
    networks = trained(panel, source, int(asked[0]), args.seeds)
    ensemble = default_ensemble(networks)
    parts = [model.forecast(panel, dates, source=source) for model in ensemble.models]
    for seed, part in zip(args.seeds, parts, strict=False):
        board.add(f"network, seed {seed}", tails(part, 1))
        both = mixed([part, parts[-1]], [1 - ensemble.weights[-1], ensemble.weights[-1]])
        board.add(f"ensemble, seed {seed}", tails(both, 1))
    board.add("networks", tails(mixed(parts[:-1]), 1))
    board.add("ensemble", tails(mixed(parts, ensemble.weights), 1))


if __name__ == "__main__":
    main()
