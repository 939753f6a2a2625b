"""About what each trial of a search will take, from a few timed runs on a part of the data.

Distinct combinations of family and size are trained for a moment on some users and scaled by pairs
and epochs. That is an order of magnitude: side data are left out, so a hybrid takes longer, and
measuring a trial comes on top.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from perso.data.prepared import Interactions
from perso.models.families import OneOfTheConfigs, fit_model
from perso.models.side_data import SideData
from perso.tuning.points import Point
from perso.tuning.spec import SearchSpec

_SAMPLE_PAIRS: Final = 50_000
_SAMPLE_EPOCHS: Final = 2
_SIZES: Final = ("num_factors", "num_neighbors", "num_negatives", "batch_size", "loss", "solver")
"""Settings that change what training costs; the others are taken as free."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """About what one trial takes."""

    cpu_s: float
    """Seconds of training, of all its threads."""


def estimate_trials(
    spec: SearchSpec, points: Sequence[Point], train: Interactions
) -> dict[int, Estimate]:
    """Estimates by number of the trial; what a family refuses is left out.

    Args:
        spec: The search.
        points: Its trials.
        train: What they will learn from.
    """
    if not len(train):
        return {}
    sample = _some_users(train)
    seconds: dict[str, float] = {}
    estimates: dict[int, Estimate] = {}
    for point in points:
        try:
            config = point.config(spec)
        except ValueError:  # drawn settings that the family refuses together
            continue
        epochs = getattr(config, "epochs", None)
        kind = repr(sorted(_sizes(config).items()))
        if kind not in seconds:
            seconds[kind] = _time(sample, config)
        share = len(train) / len(sample) * (1.0 if epochs is None else epochs / _SAMPLE_EPOCHS)
        if np.isfinite(seconds[kind]):
            estimates[point.number] = Estimate(cpu_s=seconds[kind] * share)
    return estimates


def _some_users(train: Interactions) -> Interactions:
    """The pairs of the first users of a shuffle, about as many as a sample has."""
    if len(train) <= _SAMPLE_PAIRS:
        return train
    users = np.random.default_rng(0).permutation(train.num_users)
    counts_U = np.bincount(train.user_indices, minlength=train.num_users)
    taken = users[: int(np.searchsorted(counts_U[users].cumsum(), _SAMPLE_PAIRS)) + 1]
    return train.take(np.isin(train.user_indices, taken))


def _sizes(config: Any, prefix: str = "") -> Mapping[str, Any]:
    """The settings that cost depends on, those of parts included."""
    found: dict[str, Any] = {f"{prefix}family": config.family}
    for name, value in vars(config).items():
        if name in _SIZES:
            found[prefix + name] = value
        elif hasattr(value, "family"):
            found |= _sizes(value, f"{prefix}{name}.")
    return found


def _time(sample: Interactions, config: OneOfTheConfigs) -> float:
    shorter: Any = config
    if hasattr(config, "epochs"):
        shorter = replace(shorter, epochs=_SAMPLE_EPOCHS)
    try:
        fit_model(sample, shorter, SideData())  # compilers and allocators warm up
        started = time.process_time()
        fit_model(sample, shorter, SideData())
    except (ValueError, MemoryError, RuntimeError):
        return float("nan")
    return time.process_time() - started
