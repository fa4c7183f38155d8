"""Encoders, which map windows to hidden states, and baselines, which forecast without training."""

from qtorch.models.asset_graph import AssetGraph
from qtorch.models.baselines import HAR, Ewma, FilteredHistoricalSimulation, Garch, HistoricalSimulation, RiskMetrics
from qtorch.models.defaults import default_ensemble, default_forecaster, default_windows
from qtorch.models.graph_covariance import GraphCovariance
from qtorch.models.graph_scores import GraphScores
from qtorch.models.inverted_transformer import InvertedTransformer
from qtorch.models.market_state import MarketState
from qtorch.models.mixers import OverGraph, OverLearnedGraph, OverTree
from qtorch.models.panel_transformer import PanelTransformer
from qtorch.models.patch_transformer import PatchTransformer
from qtorch.models.recurrent import Recurrent
from qtorch.models.transformer import SessionCache, TemporalTransformer, Transformer

__all__ = [
    "HAR",
    "AssetGraph",
    "Ewma",
    "FilteredHistoricalSimulation",
    "Garch",
    "GraphCovariance",
    "GraphScores",
    "HistoricalSimulation",
    "InvertedTransformer",
    "MarketState",
    "OverGraph",
    "OverLearnedGraph",
    "OverTree",
    "PanelTransformer",
    "PatchTransformer",
    "Recurrent",
    "RiskMetrics",
    "SessionCache",
    "TemporalTransformer",
    "Transformer",
    "default_ensemble",
    "default_forecaster",
    "default_windows",
]
