"""Popularity: what sells now, in the whole shop and in each of its groups.

The weights of interactions are decayed when the data is prepared, so their sum per item is what
is popular at the end of the period. A score is a share of that demand.
"""

# U users, I items, S slices of one kind, B users of one call

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.models.protocol import UserBatch
from perso.schema import CONTEXT_COLUMNS

SliceKind = Literal["segment", "device", "region", "daypart"]
SLICE_KINDS: Final[tuple[SliceKind, ...]] = get_args(SliceKind)

SMOOTHING: Final = 1.0
"""Online Retail, Recall@20 of popularity by country, spending group and recency × frequency
group: unsmoothed .057, .053, .049; with 1 .057, .055, .052; global popularity .053."""

MAX_SLICES: Final = 64
"""Slices kept of one kind, the busiest: a shop may name thousands of regions, and each slice has
a score per item. The rest fall back to global popularity."""


@dataclass(frozen=True, kw_only=True)
class PopularityModel:
    """Shares of demand per item."""

    global_scores_I: NDArray[np.float32]
    slices: Mapping[str, tuple[tuple[str, ...], NDArray[np.float32]]]
    """By kind of slice: the names and their scores, shape (S, I)."""

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

    def score(self, batch: UserBatch) -> NDArray[np.float32]:
        """Each user's segment's scores, else the global ones, shape (B, I)."""
        scores_BI = np.tile(self.global_scores_I, (len(batch.user_indices), 1))
        for row, segment in enumerate(batch.segment_names or ()):
            scores_I = None if segment is None else self.slice_scores("segment", segment)
            if scores_I is not None:
                scores_BI[row] = scores_I
        return scores_BI

    def save(self, folder: Path) -> None:
        """Write the arrays and ``model.json`` into an empty folder."""
        np.save(folder / "global.npy", self.global_scores_I)
        for kind, (_, scores_SI) in self.slices.items():
            np.save(folder / f"{kind}.npy", scores_SI)
        names = {kind: list(names) for kind, (names, _) in self.slices.items()}
        (folder / "model.json").write_text(
            json.dumps({"slices": names}, ensure_ascii=False, indent=1, sort_keys=True),
            encoding="utf-8",
        )

    @classmethod
    def load(cls, folder: Path) -> "PopularityModel":
        """The model in a folder that :meth:`save` wrote; its arrays are memory-mapped, read-only.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array or no JSON, or names a kind of slice that does not
                exist.
            KeyError: If the names are missing.
        """
        names = json.loads((folder / "model.json").read_text(encoding="utf-8"))["slices"]
        if foreign := names.keys() - set(SLICE_KINDS):
            raise ValueError(f"unknown kinds of slice {sorted(foreign)}")
        return cls(
            global_scores_I=np.load(folder / "global.npy", mmap_mode="r"),
            slices={
                kind: (tuple(names[kind]), np.load(folder / f"{kind}.npy", mmap_mode="r"))
                for kind in names
            },
        )


def fit_popularity(
    interactions: Interactions,
    segments: UserGroups | None = None,
    *,
    smoothing: float = SMOOTHING,
) -> PopularityModel:
    """Shares of demand per item: global, per segment, device, region and daypart.

    A slice's share mixes in the global one as if ``smoothing`` average interactions per item more
    had been spread like those of the whole shop, so that a slice of three purchases is not a list
    of three items and then nothing. Without interactions every share is 0.

    Args:
        interactions: What to count; not changed.
        segments: The segment of each user_index.
        smoothing: Strength of the mixing, in average interactions per item; 0 counts the slice
            alone.

    Raises:
        ValueError: If smoothing is negative, or segments and interactions differ in users.
    """
    if not smoothing >= 0:
        raise ValueError(f"smoothing is {smoothing}; give 0 or more")
    if segments is not None and len(segments.codes_U) != interactions.num_users:
        raise ValueError(
            f"segments cover {len(segments.codes_U)} users, interactions {interactions.num_users}"
        )
    demand_I = np.bincount(interactions.item_indices, interactions.weights, interactions.num_items)
    total = demand_I.sum()
    global_I = demand_I / total if total > 0 else demand_I
    slices: dict[str, tuple[tuple[str, ...], NDArray[np.float32]]] = {}
    groups: dict[str, tuple[tuple[str, ...], NDArray[np.int32]]] = {
        column: (interactions.context_names[column], interactions.context_codes[column])
        for column in CONTEXT_COLUMNS
        if column in interactions.context_names
    }
    if segments is not None:
        groups["segment"] = (segments.names, segments.codes_U[interactions.user_indices])
    mean_weight = total / max(len(interactions), 1)
    added_I = smoothing * interactions.num_items * mean_weight * global_I
    for kind, (names, codes) in groups.items():
        if kept := _busiest(names, codes, interactions.weights):
            slices[kind] = _slice_shares(kept, codes, interactions, added_I)
    return PopularityModel(global_scores_I=global_I.astype(np.float32), slices=slices)


def _busiest(
    names: tuple[str, ...], codes: NDArray[np.int32], weights: NDArray[np.float32]
) -> dict[int, str]:
    """Code and name of the slices to keep, in code order; none without demand."""
    known = codes >= 0
    demand_S = np.bincount(codes[known], weights[known], len(names))
    order = np.argsort(-demand_S, kind="stable")[:MAX_SLICES]
    return {int(code): names[code] for code in np.sort(order) if demand_S[code] > 0}


def _slice_shares(
    kept: dict[int, str],
    codes: NDArray[np.int32],
    interactions: Interactions,
    added_I: NDArray[np.float64],
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    scores_SI = np.empty((len(kept), interactions.num_items), np.float32)
    for row, code in enumerate(kept):
        inside = codes == code
        demand_I = added_I + np.bincount(
            interactions.item_indices[inside],
            interactions.weights[inside],
            interactions.num_items,
        )
        scores_SI[row] = demand_I / demand_I.sum()
    return tuple(kept.values()), scores_SI
