"""The one LightningModule of all allocators."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import lightning
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from qtorch.data.errors import DataError, listing
from qtorch.data.panel import Panel
from qtorch.data.rows import Dates, label
from qtorch.data.window import WindowSpec
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError, NonFiniteError
from qtorch.models.market_state import MarketState
from qtorch.portfolio import Costs, simulate
from qtorch.portfolio.feasibility import RowError
from qtorch.portfolio.graphs import GraphBuilder
from qtorch.portfolio.simulation import Simulation
from qtorch.training.allocation_objectives import (
    AllocationObjective,
    LeastTrackingError,
    LeastVariance,
    joined,
)
from qtorch.training.averaging import Averaging
from qtorch.training.compiling import Compiled
from qtorch.training.decisions import Decisions, DecisionSource, checked_half_lives, default_graphs
from qtorch.training.optimisation import Schedule, adamw
from qtorch.training.shape_likelihood import ShapeLikelihood
from qtorch.training.trained_on import TrainedOn
from qtorch.training.trainer import quiet, trainer_of


@dataclass(frozen=True, eq=False)
class Episodes:
    """A batch of B stretches of time with a decision at the head of each of R spans of S sessions.

    Attributes:
        decisions: B R of them, those of an episode one after the other.
        returns: of the S sessions after each decision, 0 where there are none.
        there: where there are.
    """

    decisions: Decisions
    returns: Float[Tensor, "B R S N"]
    there: Bool[Tensor, "B R S N"]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Episodes":
        """The same on a device."""
        return Episodes(self.decisions.to(device), self.returns.to(device), self.there.to(device))

    def __len__(self) -> int:
        """The number of episodes B."""
        return len(self.returns)


_Allocator = TypeVar("_Allocator", bound="Allocator")


class Allocator(lightning.LightningModule):
    """Maps the state of a market to portfolio weights: a network, an allocation layer, and how to train them.

    Training runs through the portfolio's own account: at each decision of an episode the network looks at the market,
    the layer makes weights that keep to the constraints around what is held and closed, and an account trades to them,
    pays costs, and lets the weights drift to the next decision. The objective is of what the account earned, and its
    gradient goes through all of it.

    Args:
        network: a module that maps a `MarketState` to what the layer takes, such as `GraphCovariance` or `GraphScores`.
        allocation: a layer `(views, universe, holdings=, tradable=) -> weights`, such as `MinimumVariance` or
            `Projected`; with `groups=` too, where there are any.
        spec: what the encoder sees of each asset.
        half_lives: of the estimates of correlations and volatilities, in rows.
        graphs: how graphs are made; see `DecisionSource`.
        groups: the label of each asset by the name of a partition, for a layer with caps of groups.
        every: rows between decisions.
        length: decisions of an episode in training.
        objective: what training minimises, of the account; `LeastVariance` by default. `ShapeLikelihood` is of a
            network's covariances and the returns that followed, and needs no account.
        costs: of trading; 10 basis points of what is traded by default.
        min_history: returns that an asset needs to be given a weight.
        stale: sessions of its exchange without a price, after which it is given none.
        schedule: of the learning rate.
        weight_decay: AdamW's, on matrices.

    Attributes:
        trained_on: what each fit has shown it, in their order; `qtorch.deploy.save` keeps it.

    Raises:
        ValueError: a number is out of bounds, or the network takes another number of estimates than half-lives give.
    """

    def __init__(
        self,
        network: nn.Module,
        allocation: nn.Module,
        spec: WindowSpec | None = None,
        *,
        half_lives: Iterable[float] = (63.0, 252.0),
        graphs: GraphBuilder | None = None,
        groups: Mapping[str, Mapping[str, str | None]] | None = None,
        every: int = 21,
        length: int = 12,
        objective: AllocationObjective | LeastTrackingError | ShapeLikelihood | None = None,
        costs: Costs | None = None,
        min_history: int = 250,
        stale: int = 5,
        schedule: Schedule | None = None,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        require(every >= 1, "every", every, "give at least one row between decisions")
        require(length >= 1, "length", length, "give at least one decision")
        self.network, self.allocation = network, allocation
        self.spec = WindowSpec(horizons=(1,)) if spec is None else spec
        self.half_lives, self.every, self.length = tuple(checked_half_lives(half_lives)), every, length
        for module in network.modules():
            taken = getattr(module, "estimates", len(self.half_lives))
            of_each = f"{type(module).__name__} takes one estimate for each of the {len(self.half_lives)} half_lives"
            require(taken == len(self.half_lives), "estimates", taken, of_each)
        self.objective = LeastVariance() if objective is None else objective
        self.costs = Costs(proportional=1e-3) if costs is None else costs
        self.graphs = default_graphs() if graphs is None else graphs
        self.groups = {name: dict(labels) for name, labels in (groups or {}).items()}
        self.min_history, self.stale = min_history, stale
        self.schedule, self.weight_decay = Schedule() if schedule is None else schedule, weight_decay
        self.trained_on: tuple[TrainedOn, ...] = ()

    def source(self, panel: Panel) -> DecisionSource:
        """Decisions of a panel as this model is fed them."""
        return DecisionSource(
            panel,
            self.spec,
            self.half_lives,
            self.graphs,
            self.groups,
            self.min_history,
            self.stale,
            trees=any(getattr(module, "needs_tree", False) for module in self.network.modules()),
        )

    def views(self, market: MarketState) -> Tensor:
        """What the network says, for the allocation layer."""
        views: Tensor = self.network(market)
        return views

    def forward(self, decisions: Decisions, holdings: Float[Tensor, "R N"] | None = None) -> Float[Tensor, "R N"]:
        """Weights at some decisions, each around the weights that are held there.

        Args:
            decisions: what is known.
            holdings: today's weights, drifted with the prices. Without them no market counts as closed, and a limit of
                the turnover is one from equal weights.

        Raises:
            DataError: the universe is empty at a date.
            ValueError: no weights keep to the constraints at a date.
        """
        return self._weights(self.views(decisions.market), decisions, slice(None), holdings)

    def run(self, episodes: Episodes) -> Simulation:
        """The account of each episode, `[B, R S]` sessions; it starts at the first weights, without a cost."""
        decisions = episodes.decisions
        views = self.views(decisions.market)
        return account(episodes, self.costs, lambda at, held: self._weights(views[at], decisions, at, held))

    def equal(self, episodes: Episodes) -> Simulation:
        """The account of equal weights of each decision's universe, without costs: a benchmark."""
        universe = episodes.decisions.market.universe
        share = universe / universe.sum(-1, keepdim=True).clamp(min=1)
        return account(episodes, Costs(), lambda at, held: share[at])

    def loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The objective, of the account or, where it is a `ShapeLikelihood`, of the network's covariances."""
        if isinstance(self.objective, ShapeLikelihood):
            returns, there = episodes.returns.flatten(0, 1), episodes.there.flatten(0, 1)
            return self.objective(
                self.views(episodes.decisions.market), episodes.decisions.market.universe, returns, there
            )
        account = self.run(episodes)
        if isinstance(self.objective, LeastTrackingError):
            return self.objective(account, self.equal(episodes))
        return self.objective(account)

    def training_step(self, episodes: Episodes, index: int) -> Tensor:
        """The objective.

        Raises:
            FloatingPointError: it is not finite.
        """
        loss = self.loss(episodes)
        if not torch.isfinite(loss):
            raise NonFiniteError(
                f"the objective is {loss.item()} at step {self.global_step}: lower the learning rate, or look at the "
                "returns of the panel."
            )
        self.log("train_loss", loss, prog_bar=True, batch_size=len(episodes))
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and a cosine over the planned number of steps."""
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer, rate = adamw(self, self.schedule, self.weight_decay, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    @torch.no_grad()
    def decide(self, decisions: Decisions, holdings: Float[Tensor, "R N"] | None = None) -> Float[Tensor, "R N"]:
        """As `forward`, without dropout and gradients, of tensors on any device, where the weights are too."""
        training = self.training
        self.eval()
        try:
            held = None if holdings is None else holdings.float().to(self.device)
            return self(decisions.to(self.device), held).to(decisions.rows.device)
        finally:
            self.train(training)

    def allocate(
        self,
        panel: Panel,
        dates: Dates,
        holdings: pd.Series | Mapping[str, float] | None = None,
    ) -> pd.DataFrame:
        """Weights at some dates of a panel, one row a date and one column an asset, of what is known there.

        Args:
            panel: the market.
            dates: as-of dates, one or many.
            holdings: weights held at the date, by asset; of one date alone. Assets that are not named have none.
                With them, what is closed at the date stays as it is.

        Raises:
            DataError: there is no date, one or an asset of the holdings is not the panel's, or the universe is empty.
            ValueError: holdings for several dates, or no weights keep to the constraints.
        """
        rows = panel.rows(dates).tolist()
        held = None
        if holdings is not None:
            if len(rows) != 1:
                raise ArgumentError(
                    f"holdings are those of one date, but there are {len(rows)}: ask for one at a time."
                )
            unknown = sorted(set(dict(holdings)) - set(panel.assets))
            if unknown:
                raise DataError(f"the holdings name {unknown[:5]}, which the panel does not have. Sell or add them.")
            by_name = dict(holdings)
            held = torch.tensor([[float(by_name.get(asset, 0.0)) for asset in panel.assets]])
        weights = self.decide(self.source(panel).at(rows), held)
        return pd.DataFrame(weights.double().cpu().numpy(), index=panel.dates[rows], columns=list(panel.assets))

    def fit(self: _Allocator, panel: Panel, *, until: str | pd.Timestamp | None = None, **training: Any) -> _Allocator:
        """Trains the model on a panel's past: `qtorch.training.fit_allocator`, as the method that every model has.

        Args:
            panel: the market.
            until: the last date of which anything is seen, which need not be a session; the panel's last by default.
            **training: further arguments of `fit_allocator`, such as `since`, `steps`, `batch_size`, `seed` and
                `accelerator`, and those of `lightning.Trainer`, such as `callbacks` and `logger`.

        Returns:
            Itself, in evaluation mode; the Trainer that was used is its `trainer`.

        Raises:
            DataError: the span is too short for an episode.
            ValueError: `max_epochs` or `max_steps` is given, and not `steps`.
            FloatingPointError: the objective is not finite.
        """
        fit_allocator(self, panel, until, **training)
        return self

    def predict(
        self,
        panel: Panel,
        dates: Dates | None = None,
        holdings: pd.Series | Mapping[str, float] | None = None,
    ) -> pd.DataFrame:
        """Weights at some dates of a panel: `allocate`, as the method that every model has.

        Args:
            panel: the market.
            dates: as-of dates, one or many; the panel's last by default.
            holdings: as of `allocate`, whose errors are raised too.
        """
        return self.allocate(panel, panel.dates[-1] if dates is None else dates, holdings)

    def _weights(
        self, views: Tensor, decisions: Decisions, at: Int64[Tensor, " Q"] | slice, holdings: Tensor | None
    ) -> Tensor:
        """Weights at some of the decisions."""
        universe = decisions.market.universe[at]
        tradable = None if holdings is None else decisions.tradable[at]
        if holdings is None and getattr(self.allocation, "needs_holdings", False):
            holdings = universe / universe.sum(-1, keepdim=True).clamp(min=1)
        if tradable is not None and holdings is not None:
            # What left the universe and can't be sold tonight stays, and the others are chosen around it.
            universe = torch.logical_or(universe, torch.logical_and(~tradable, holdings != 0))
        groups = {name: labels[at] for name, labels in decisions.groups.items()}
        options = {"groups": groups} if groups else {}  # which not every layer takes
        there = universe.any(-1)
        if not there.all():
            raise DataError(
                f"{listing(_days(decisions, at, ~there))}: the universe is empty. An asset needs "
                f" min_history={self.min_history} returns and 60 for correlations, one of them in its last "
                f"{self.stale} sessions, and prices that move: begin later, or ask for less."
            )
        try:
            weights: Tensor = self.allocation(views, universe, holdings=holdings, tradable=tradable, **options)
        except RowError as error:
            (day,) = _days(decisions, at, slice(error.row, error.row + 1))
            asset = "" if error.asset is None else f", {decisions.assets[error.asset]}"
            raise ArgumentError(f"{day}{asset}: {error.what}") from error
        return weights


def account(
    episodes: Episodes, costs: Costs, decide: Callable[[Int64[Tensor, " B"], Tensor | None], Float[Tensor, "B N"]]
) -> Simulation:
    """The account of each episode, `[B, R S]` sessions, which starts at the first weights, without a cost.

    Args:
        episodes: B of them.
        costs: of trading.
        decide: gives weights by the numbers of decisions, one an episode, and what is held; None at the first.
    """
    B, R, S, N = episodes.returns.shape
    first = torch.arange(0, B * R, R, device=episodes.returns.device)
    trading = torch.arange(S, device=first.device) == 0
    holdings: Tensor | None = None
    parts = []
    for r in range(R):
        at = first + r
        weights = decide(at, holdings)
        part = simulate(
            weights.unsqueeze(1).expand(B, S, N),
            episodes.returns[:, r],
            episodes.there[:, r],
            costs=costs,
            tradable=episodes.decisions.tradable[at].unsqueeze(1).expand(B, S, N) if r else None,
            rebalance=trading,
            start=weights if holdings is None else holdings,
        )
        holdings = part.final
        parts.append(part)
    return joined(parts)


def _days(decisions: Decisions, at: Tensor | slice, which: Tensor | slice) -> list[str]:
    """The dates of some of the decisions at some rows."""
    rows = torch.arange(len(decisions), device=decisions.rows.device)[at][which]
    return [f"{date:%Y-%m-%d}" for date in decisions.dates[rows.cpu().numpy()]]


class EpisodeSet(Dataset[Episodes]):
    """Batches of random episodes of a panel, the same for the same seed.

    Args:
        allocator: for which they are.
        panel: the market.
        until: the last date of which anything is seen.
        since: the first date of a decision; the first with enough history by default.
        batches: how many.
        batch_size: episodes of each.
        seed: of their starts.
        min_assets: a decision needs so many in the universe, which must be enough to meet the constraints; episodes
            with fewer are left out. By default a quarter of the panel's, and two at least.

    Raises:
        DataError: the span is too short for an episode, or there is none of enough assets.
    """

    def __init__(
        self,
        allocator: Allocator,
        panel: Panel,
        until: str | pd.Timestamp | None = None,
        since: str | pd.Timestamp | None = None,
        *,
        batches: int = 300,
        batch_size: int = 8,
        seed: int = 0,
        min_assets: int | None = None,
    ) -> None:
        last_seen = -1 if until is None else panel.row_until(until)
        self.source = allocator.source(panel.until(panel.dates[last_seen]))
        self.every, self.length = allocator.every, allocator.length
        self.batches, self.batch_size, self.seed = batches, batch_size, seed
        seen = self.source.panel
        first = allocator.min_history if since is None else int(seen.dates.searchsorted(label(since, "since")))
        last = len(seen.dates) - 1 - self.every * self.length
        apart = max(self.every // 3, 1)  # starts stand this far apart, so that estimates are shared
        first = -(-first // apart) * apart
        if last < first:
            raise DataError(
                f"an episode takes {self.every * self.length} rows after {first}, but the panel has {len(seen.dates)} "
                "up to the date. Give more history, or shorter episodes."
            )
        starts = torch.arange(first, last + 1, apart)
        rows = starts.unsqueeze(-1) + self.every * torch.arange(self.length)
        of_rows, place = rows.unique(return_inverse=True)
        least = max(len(seen.assets) // 4, 2) if min_assets is None else min_assets
        enough = self.source.universe(of_rows.tolist()).sum(-1).cpu() >= least
        self.starts = starts[enough[place].all(-1)]
        if not len(self.starts):
            raise DataError(
                f"no episode has {least} assets in the universe at each of its decisions up to "
                f"{seen.dates[-1]:%Y-%m-%d}. Give more history, shorter episodes, or a smaller min_assets."
            )

    def __len__(self) -> int:
        """The number of batches."""
        return self.batches

    def __getitem__(self, number: int) -> Episodes:
        """A batch by its number."""
        if not 0 <= number < self.batches:
            raise IndexError(number)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        start = self.starts[torch.randint(len(self.starts), (self.batch_size,), generator=generator)]
        rows = (start.unsqueeze(-1) + self.every * torch.arange(self.length)).flatten()
        decisions = self.source.at(rows.tolist())
        shape = (self.batch_size, self.length)
        returns, there = (part.unflatten(0, shape) for part in self.source.outcomes(decisions.rows, self.every))
        return Episodes(decisions, returns, there)


def fit_allocator(
    allocator: Allocator,
    panel: Panel,
    until: str | pd.Timestamp | None = None,
    since: str | pd.Timestamp | None = None,
    *,
    steps: int = 300,
    batch_size: int = 8,
    min_assets: int | None = None,
    averaging: float | None = 0.98,
    seed: int = 0,
    accelerator: str = "auto",
    precision: Any = "32-true",
    compile: bool = False,
    progress: bool = False,
    **trainer: Any,
) -> None:
    """Trains an allocator in place on the past of a panel, and leaves it in evaluation mode.

    The Trainer that was used is `allocator.trainer` afterwards. The caller's random generators are left as they were.

    Args:
        allocator: the model.
        panel: the market.
        until: the last date of which anything is seen; the panel's last by default.
        since: the first date of a decision.
        steps: batches.
        batch_size: episodes of each.
        min_assets: in the universe at each decision; see `EpisodeSet`.
        averaging: decay of a moving average of the weights, which is kept; None takes the weights as they are.
        seed: of episodes, dropout and noise.
        accelerator: as of Lightning.
        precision: as of Lightning.
        compile: compile the network, in place; its decisions are compiled too afterwards. The allocation layer is not.
        progress: show a progress bar.
        **trainer: further arguments of `lightning.Trainer`, such as `callbacks` and `logger`, as of
            `qtorch.training.fit`; but `max_epochs` and `max_steps`, whose place is taken by `steps`.

    Raises:
        ValueError: `max_epochs` or `max_steps` is given, or a network over trees is to be compiled.
        DataError: the span is too short for an episode.
        FloatingPointError: the objective is not finite.
    """
    for name in ("max_epochs", "max_steps"):
        if name in trainer:
            raise ArgumentError(f"{name}={trainer[name]}: an allocator is trained for a number of batches. Give steps.")
    data = EpisodeSet(
        allocator, panel, until, since, batches=steps, batch_size=batch_size, seed=seed, min_assets=min_assets
    )
    with quiet(), isolate_rng():
        runner = trainer_of(
            trainer,
            [*([] if averaging is None else [Averaging(averaging)]), *([Compiled()] if compile else [])],
            accelerator=accelerator,
            devices=1,
            precision=precision,
            max_steps=steps,
            max_epochs=1,
            enable_checkpointing=False,
            enable_progress_bar=progress,
        )
        torch.manual_seed(seed)
        allocator.train()
        runner.fit(allocator, DataLoader(data, batch_size=None))
    seen = data.source.panel
    allocator.trained_on += (TrainedOn.of(seen, len(seen.dates) - 1),)
    allocator.eval()
