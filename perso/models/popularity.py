"""Popularity: what sells now, in the whole shop and in each of its groups.

A score is a share of demand, the sum of decayed weights. Segments and contexts (device, region,
hour) have shares of their own, 4 bytes an item and slice; a category needs no table, its shares
are those of the whole shop restricted to its items. Cost is linear in interactions, times the
slices kept: at 100 million interactions and 150 slices some minutes.
"""

# U users, I items, S slices of one kind, B users of one call, N interactions

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.models.popularity_config import SMOOTHING, PopularityConfig
from perso.models.protocol import UserBatch

SEGMENT: Final = "segment"
"""The kind of slice that :attr:`UserBatch.segment_names` asks for."""

MAX_SLICES: Final = 64
"""Slices kept of one kind, the busiest: a shop may name thousands of regions, and each slice has
a score per item. The rest fall back to global popularity."""

_MICROSECONDS_PER_DAY: Final = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class PopularityModel:
    """Shares of demand per item."""

    global_scores_I: NDArray[np.float32]
    slices: Mapping[str, tuple[tuple[str, ...], NDArray[np.float32]]]
    """By kind of slice: the names and their scores, shape (S, I)."""

    def __post_init__(self) -> None:
        for kind, (names, scores_SI) in self.slices.items():
            if scores_SI.shape != (len(names), self.num_items):
                raise ValueError(
                    f"scores by {kind} have shape {scores_SI.shape}, but {len(names)} slices of "
                    f"{self.num_items} items ask for {(len(names), self.num_items)}"
                )

    @property
    def num_items(self) -> int:
        """Length of a score row."""
        return len(self.global_scores_I)

    def slice_scores(self, kind: str, name: str) -> NDArray[np.float32] | None:
        """Scores of one slice, shape (I,); None for a slice that was not seen in training."""
        names, scores_SI = self.slices.get(kind, ((), None))
        if scores_SI is None or name not in names:
            return None
        scores_I: NDArray[np.float32] = scores_SI[names.index(name)]
        return scores_I

    def context_scores(self, context: Mapping[str, str | None]) -> NDArray[np.float32] | None:
        """Mean share of demand over the known values, shape (I,); None where all are unknown."""
        shares = []
        for kind, value in sorted(context.items()):
            scores_I = None if value is None else self.slice_scores(kind, value)
            if scores_I is not None and (total := float(scores_I.sum())) > 0:
                shares.append(scores_I / total)
        return np.mean(shares, axis=0, dtype=np.float32) if shares else None

    def score(self, batch: UserBatch) -> NDArray[np.float32]:
        """Each user's segment's scores, else those of the context, else the global ones.

        Returns:
            Scores of every item for each user, shape (B, I).
        """
        segments_B = batch.segment_names or (None,) * len(batch.user_indices)
        scores_BI = np.empty((len(batch.user_indices), self.num_items), np.float32)
        shares: dict[tuple[str | None, ...], NDArray[np.float32]] = {}
        for row, values in enumerate(zip(segments_B, *batch.context.values(), strict=True)):
            if values not in shares:
                context = dict(zip(batch.context, values[1:], strict=True))
                shares[values] = self._shares(values[0], context)
            scores_BI[row] = shares[values]
        return scores_BI

    def _shares(
        self, segment: str | None, context: Mapping[str, str | None]
    ) -> NDArray[np.float32]:
        """The first rung that knows something."""
        scores_I = None if segment is None else self.slice_scores(SEGMENT, segment)
        if scores_I is None:
            scores_I = self.context_scores(context)
        return self.global_scores_I if scores_I is None else scores_I

    def save(self, folder: Path) -> None:
        """Write the arrays and ``model.json`` into an empty folder."""
        np.save(folder / "global.npy", self.global_scores_I)
        names = {}
        for place, (kind, (slice_names, scores_SI)) in enumerate(sorted(self.slices.items())):
            np.save(folder / f"slices_{place}.npy", scores_SI)
            names[kind] = list(slice_names)
        document = {"class": "popularity", "slices": names}
        (folder / "model.json").write_text(
            json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True), encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: Path) -> "PopularityModel":
        """The model in a folder that :meth:`save` wrote; its arrays are memory-mapped, read-only.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array or no JSON, or the shapes disagree.
            KeyError: If the names are missing.
        """
        names = json.loads((folder / "model.json").read_text(encoding="utf-8"))["slices"]
        return cls(
            global_scores_I=np.load(folder / "global.npy", mmap_mode="r"),
            slices={
                kind: (tuple(names[kind]), np.load(folder / f"slices_{place}.npy", mmap_mode="r"))
                for place, kind in enumerate(sorted(names))
            },
        )


def fit_popularity(
    interactions: Interactions,
    segments: UserGroups | None = None,
    *,
    smoothing: float = SMOOTHING,
    half_life_days: float | None = None,
) -> PopularityModel:
    """Shares of demand per item: global, per segment, and per value of each context column.

    A slice's share mixes in the global one as if ``smoothing`` average interactions per item more
    had been spread like those of the whole shop, so that a slice of three purchases is not a list
    of three items and then nothing. Without interactions every share is 0.

    Args:
        interactions: What to count; not changed.
        segments: The segment of each user_index.
        smoothing: Strength of the mixing, in average interactions per item; 0 counts the slice
            alone.
        half_life_days: Days before the newest interaction at which a weight counts half, by the
            pair's last event; none where weights are decayed already, as prepared ones are.

    Raises:
        ValueError: If smoothing or half-life is out of range, or segments and interactions differ
            in users.
    """
    PopularityConfig(smoothing=smoothing, half_life_days=half_life_days)
    if segments is not None and len(segments.codes_U) != interactions.num_users:
        raise ValueError(
            f"segments cover {len(segments.codes_U)} users, interactions {interactions.num_users}"
        )
    weights = _decayed(interactions, half_life_days)
    demand_I = np.bincount(interactions.item_indices, weights, interactions.num_items)
    total = demand_I.sum()
    global_I = demand_I / total if total > 0 else demand_I
    slices: dict[str, tuple[tuple[str, ...], NDArray[np.float32]]] = {}
    groups: dict[str, tuple[tuple[str, ...], NDArray[np.int32]]] = {
        column: (names, interactions.context_codes[column])
        for column, names in interactions.context_names.items()
    }
    if segments is not None:
        groups[SEGMENT] = (segments.names, segments.codes_U[interactions.user_indices])
    mean_weight = total / max(len(interactions), 1)
    added_I = smoothing * interactions.num_items * mean_weight * global_I
    for kind, (names, codes) in groups.items():
        if kept := _busiest(names, codes, weights):
            slices[kind] = _slice_shares(kept, codes, interactions.item_indices, weights, added_I)
    return PopularityModel(global_scores_I=global_I.astype(np.float32), slices=slices)


def _decayed(interactions: Interactions, half_life_days: float | None) -> NDArray[np.floating]:
    if half_life_days is None or not len(interactions):
        return interactions.weights
    age_days = (interactions.last_at.max() - interactions.last_at) / _MICROSECONDS_PER_DAY
    weights: NDArray[np.floating] = interactions.weights * 0.5 ** (age_days / half_life_days)
    return weights


def _busiest(
    names: tuple[str, ...], codes: NDArray[np.int32], weights: NDArray[np.floating]
) -> dict[int, str]:
    """Code and name of the slices to keep, in code order; none without demand."""
    known = codes >= 0
    demand_S = np.bincount(codes[known], weights[known], len(names))
    order = np.argsort(-demand_S, kind="stable")[:MAX_SLICES]
    return {int(code): names[code] for code in np.sort(order) if demand_S[code] > 0}


def _slice_shares(
    kept: dict[int, str],
    codes: NDArray[np.int32],
    item_indices: NDArray[np.int32],
    weights: NDArray[np.floating],
    added_I: NDArray[np.float64],
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    scores_SI = np.empty((len(kept), len(added_I)), np.float32)
    for row, code in enumerate(kept):
        inside = codes == code
        demand_I = added_I + np.bincount(item_indices[inside], weights[inside], len(added_I))
        scores_SI[row] = demand_I / demand_I.sum()
    return tuple(kept.values()), scores_SI
