"""Causal features: transforms ``panel -> [T, N, F]`` with a mask, which compose, and declare their look-back."""

from qtorch.data.features.dates import DayOfWeek, GapDays, MonthEnd, NextGapDays, ToEvent
from qtorch.data.features.feature import CrossSection, Feature, FeatureBlock, OwnSessions
from qtorch.data.features.inputs import Features, default_features
from qtorch.data.features.labels import Label
from qtorch.data.features.market import LaterCloses, MarketState, Rank, ZScore
from qtorch.data.features.series import (
    Absolute,
    Drift,
    Ewma,
    Field,
    Log,
    Return,
    Rolling,
    Scaled,
    Volatility,
    WithIndicator,
)
from qtorch.data.features.volatility import (
    DownsideRatio,
    RangeRatio,
    RangeVariance,
    TailHistory,
    VolatilityLevel,
    VolatilityRatio,
    YangZhang,
    garman_klass,
    parkinson,
    rogers_satchell,
)

__all__ = [
    "Absolute",
    "CrossSection",
    "DayOfWeek",
    "DownsideRatio",
    "Drift",
    "Ewma",
    "Feature",
    "FeatureBlock",
    "Features",
    "Field",
    "GapDays",
    "Label",
    "LaterCloses",
    "Log",
    "MarketState",
    "MonthEnd",
    "NextGapDays",
    "OwnSessions",
    "RangeRatio",
    "RangeVariance",
    "Rank",
    "Return",
    "Rolling",
    "Scaled",
    "TailHistory",
    "ToEvent",
    "Volatility",
    "VolatilityLevel",
    "VolatilityRatio",
    "WithIndicator",
    "YangZhang",
    "ZScore",
    "default_features",
    "garman_klass",
    "parkinson",
    "rogers_satchell",
]
