"""From measures to the rows of every user view: scales fitted once, rows scored in parts.

Decides what needs all customers at once (cuts of quartiles and tiers, the sizes of segments and
clusters) and what is per row (everything else), so that parts can be scored in parallel and give
the same rows as the whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.dictionary import (
    CREATED,
    EVENT_TIMESTAMP,
    USER_ACTIVITY,
    USER_AFFINITIES,
    USER_CLUSTERS,
    USER_PROFILE,
    USER_RECENT_EVENTS,
    USER_RFM,
    View,
)
from perso.schema import TIMESTAMP
from perso.segments.cluster_model import Assignment, ClusterModel
from perso.segments.composite import CompositeScale
from perso.segments.names import NOISE, OTHER
from perso.segments.rfm import RfmScale
from perso.segments.spec import SegmentSpec

USER_VIEWS: Final = (
    USER_ACTIVITY,
    USER_PROFILE,
    USER_RFM,
    USER_CLUSTERS,
    USER_AFFINITIES,
    USER_RECENT_EVENTS,
)
_LEAST_MEMBERSHIP: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Everything that one instant's rows are made with."""

    spec: SegmentSpec
    rfm: RfmScale
    composite: CompositeScale
    clusters: ClusterModel | None
    """None where there were too few customers to fit any."""
    small_segments: frozenset[str] = frozenset()
    """Segments of too few customers: their rows say ``other``."""
    small_clusters: frozenset[str] = frozenset()
    """Clusters (keys) of too few customers: their rows name none."""

    def cluster_sizes(self, measures: pa.Table) -> dict[str, int]:
        """Customers by cluster key, to be added up over parts; empty without clusters."""
        if self.clusters is None:
            return {}
        codes = self.clusters.assign(measures).codes_N
        counts = np.bincount(codes + 1, minlength=len(self.clusters.keys) + 1)
        return dict(zip((NOISE, *self.clusters.keys), counts.tolist(), strict=True))

    def rows(
        self, measures: pa.Table, *, as_of: datetime, created: datetime
    ) -> Mapping[str, pa.Table]:
        """The rows of every user view by its name, sorted as the measures are.

        Args:
            measures: MEASURES_SCHEMA rows.
            as_of: The instant that they were measured at.
            created: From when the rows count as known, never before ``as_of``.

        Raises:
            ValueError: If ``created`` is before ``as_of``.
        """
        if created < as_of:
            raise ValueError(
                f"created {created} is before as_of {as_of}: nobody knew these rows then; "
                "give the as-of instant (a replay) or a later one"
            )
        columns: dict[str, Any] = {name: measures[name] for name in measures.column_names}
        columns |= {
            EVENT_TIMESTAMP: pa.repeat(pa.scalar(as_of, TIMESTAMP), len(measures)),
            CREATED: pa.repeat(pa.scalar(created, TIMESTAMP), len(measures)),
        }
        columns |= self.rfm.score(measures, self.spec.rfm)
        columns["segment"] = self._segment_names(columns["segment_code"])
        columns |= self.composite.score(measures, self.spec.composite)
        columns |= self._clusters(measures)
        return {view.name: _select(view, columns) for view in USER_VIEWS}

    def _segment_names(self, codes: NDArray[np.int64]) -> pa.Array:
        names = [
            OTHER if name in self.small_segments else name for name in self.spec.rfm.cube.names
        ]
        return pa.array(names, pa.string()).take(pa.array(codes))

    def _clusters(self, measures: pa.Table) -> dict[str, Any]:
        if self.clusters is None:
            return {
                field.name: pa.nulls(len(measures), field.type)
                for field in USER_CLUSTERS.schema
                if field.name in USER_CLUSTERS.feature_names
            }
        model, found = self.clusters, self.clusters.assign(measures)
        is_small_C = np.array([key in self.small_clusters for key in model.keys], np.bool_)
        codes = found.codes_N
        is_noise = codes < 0
        is_hidden = np.where(is_noise, NOISE in self.small_clusters, is_small_C[codes])
        own = np.take_along_axis(
            found.memberships_NC, np.maximum(codes, 0)[:, np.newaxis].astype(np.int64), axis=1
        )[:, 0]
        member_of, memberships = _soft(found, model.keys, is_small_C)
        place = pa.array(np.where(is_noise, len(model.keys), codes), mask=is_hidden)
        return {
            "cluster": pa.array([*model.keys, NOISE]).take(place),
            "cluster_label": pa.array([*model.labels, model.noise_label]).take(place),
            "cluster_membership": pa.array(own, pa.float32(), mask=is_hidden | is_noise),
            "member_of": pc.if_else(pa.array(is_hidden), None, member_of),
            "memberships": pc.if_else(pa.array(is_hidden), None, memberships),
            "cluster_fit": pa.repeat(model.fit_id, len(measures)),
        }


def _soft(
    found: Assignment, keys: tuple[str, ...], is_small_C: NDArray[np.bool_]
) -> tuple[pa.ListArray, pa.ListArray]:
    """Clusters with some membership, most certain first, and their memberships."""
    memberships_NC = np.where(is_small_C, 0.0, found.memberships_NC)
    order_NC = np.argsort(-memberships_NC, axis=1, kind="stable")
    sorted_NC = np.take_along_axis(memberships_NC, order_NC, axis=1)
    is_kept_NC = sorted_NC >= _LEAST_MEMBERSHIP
    offsets = pa.array(np.concatenate([[0], np.cumsum(is_kept_NC.sum(axis=1))]), pa.int32())
    return (
        pa.ListArray.from_arrays(offsets, pa.array(keys).take(pa.array(order_NC[is_kept_NC]))),
        pa.ListArray.from_arrays(offsets, pa.array(sorted_NC[is_kept_NC].astype(np.float32))),
    )


def _select(view: View, columns: Mapping[str, Any]) -> pa.Table:
    arrays = [
        column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
        for column in (columns[name] for name in view.schema.names)
    ]
    return pa.table(arrays, names=view.schema.names).cast(view.schema)
