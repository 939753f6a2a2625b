"""Segments as of one instant: scales and clusters fitted, parts scored and written, summed up.

Decides what follows on from the instant before (names of clusters, when they are chosen anew) and
which groups are too small to be named outside.
"""

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from perso.dictionary import (
    ITEM_POPULARITY,
    ITEM_PROFILE,
    USER_ACTIVITY,
    USER_AFFINITIES,
    USER_CLUSTERS,
    USER_RFM,
    VIEWS,
)
from perso.errors import ArtifactError, InputError
from perso.segments.cluster_fit import fit_clusters, refit_clusters
from perso.segments.cluster_model import ClusterModel
from perso.segments.composite import CompositeScale
from perso.segments.items import popularity_rows, profile_rows
from perso.segments.matching import Continuation, continue_clusters
from perso.segments.rfm import COLUMNS as RFM_COLUMNS
from perso.segments.rfm import RfmScale
from perso.segments.scoring import Scorer
from perso.segments.spec import SegmentSpec
from perso.segments.standing import Standing, remember
from perso.segments.summary import WeekSummary, summarize_week

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_LABELS: Final = {
    USER_RFM.name: ("user_id", "segment"),
    USER_CLUSTERS.name: ("user_id", "cluster", "cluster_label"),
}

SUMMARY_COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    view.name: tuple(
        field.name
        for field in view.schema
        if field.name in {"user_id", "segment", "cluster", "cluster_label"}
        or pa.types.is_integer(field.type)
        or pa.types.is_floating(field.type)
    )
    for view in (USER_RFM, USER_CLUSTERS, USER_ACTIVITY, USER_AFFINITIES)
}
"""By view, the columns that a summary and a report tell of: labels and numbers."""


class MapParts(Protocol):
    """Applies a picklable function to every item, in any process, and gives results in order."""

    def __call__(self, function: Callable[[T], R], items: Sequence[T], /) -> list[R]:
        """As ``[function(item) for item in items]``."""
        ...


class RowSink(Protocol):
    """Where rows go; a part may be written by any process that sees the same disk."""

    def write_part(self, view: str, as_of: datetime, part: int, table: pa.Table) -> None:
        """Put one part of a view's rows where :meth:`commit` finds it."""
        ...

    def commit(self, as_of: datetime, views: Sequence[str]) -> None:
        """Make the rows of an instant readable, all views or none."""
        ...

    def read_rows(
        self, view: str, as_of: datetime, *, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The committed rows of an instant."""
        ...


@dataclass(frozen=True, kw_only=True)
class InstantRun:
    """One instant: fit, score, write, sum up."""

    as_of: datetime
    created: datetime
    spec: SegmentSpec
    sink: RowSink
    scratch: Path
    groups: Sequence[Sequence[int]]
    """The measured parts that make each written part."""
    num_customers: int

    def run(
        self,
        standing: Standing | None,
        catalog: pa.Table,
        over_parts: MapParts,
        *,
        folder: Path,
        seed: int,
    ) -> tuple[WeekSummary, Standing]:
        """Write and commit the rows, and keep what the next instant follows on from.

        Args:
            standing: The instant before, None for the first one.
            catalog: CATALOG_SCHEMA rows.
            over_parts: Runs the work on parts.
            folder: Where instants are kept.
            seed: Of samples and fits.
        """
        started = time.perf_counter()
        if not self.num_customers:
            raise InputError(f"no event of a known user before {self.as_of}; give a later instant")
        scorer, continuation, selected_at = self._fit(standing, seed)
        parts = list(enumerate(self.groups))
        size = partial(_cluster_sizes, scorer=scorer, scratch=self.scratch)
        sizes: Counter[str] = Counter()
        for found in over_parts(size, self.groups) if scorer.clusters is not None else []:
            sizes.update(found)
        scorer = replace(scorer, small_clusters=self._small(sizes))
        write = partial(
            _write_part, scorer=scorer, scratch=self.scratch, as_of=self.as_of,
            created=self.created, sink=self.sink,
        )  # fmt: skip
        over_parts(write, parts)
        self._write_items(catalog)
        self.sink.commit(self.as_of, list(VIEWS))
        summary = self._summarize(standing, continuation)
        clusters = scorer.clusters
        if clusters is None and standing is not None:
            clusters = standing.clusters  # a thin week: its names wait for the next fit
        now = Standing(as_of=self.as_of, clusters=clusters, selected_at=selected_at)
        remember(now, summary, self.spec, folder)
        shutil.rmtree(self.scratch, ignore_errors=True)
        logger.info(
            "segments: %d customers as of %s, %s (%.1f s)",
            self.num_customers,
            self.as_of,
            f"{len(scorer.clusters.keys)} clusters" if scorer.clusters else "no clusters",
            time.perf_counter() - started,
        )
        for alert in summary.alerts:
            logger.warning("segments: %s: %s", self.as_of, alert.sentence)
        return summary, now

    def _fit(
        self, standing: Standing | None, seed: int
    ) -> tuple[Scorer, Continuation | None, datetime | None]:
        spec = self.spec
        buyers = pa.concat_tables(
            [self._read(part, ["user_id", *RFM_COLUMNS]) for part in self._parts]
        )
        if pc.count_distinct(buyers["user_id"]).as_py() != len(buyers):
            raise ArtifactError(
                "a user's events are spread over several event files; prepare the data again"
            )
        rfm = RfmScale.fit(buyers, spec.rfm)
        codes = rfm.score(buyers, spec.rfm)["segment_code"]
        names = spec.rfm.cube.names
        segments = dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))
        sample = self._sample(seed)
        clusters, continuation, selected_at = self._fit_clusters(sample, standing, seed)
        scorer = Scorer(
            spec=spec,
            rfm=rfm,
            composite=CompositeScale.fit(sample, spec.composite),
            clusters=clusters,
            small_segments=self._small(segments),
        )
        return scorer, continuation, selected_at

    def _fit_clusters(
        self, sample: pa.Table, standing: Standing | None, seed: int
    ) -> tuple[ClusterModel | None, Continuation | None, datetime | None]:
        """New clusters that keep the names of those before, and when they were last selected."""
        spec = self.spec.clusters
        previous = None if standing is None else standing.clusters
        chosen = None if standing is None else standing.selected_at
        pause = timedelta(weeks=self.spec.step_weeks * spec.reselect_every)
        if previous is None or chosen is None or self.as_of - chosen >= pause:
            fitted = fit_clusters(sample, spec, seed=seed, previous=previous)
            chosen = self.as_of if fitted is not None else None
        else:
            fitted = refit_clusters(sample, spec, previous=previous, seed=seed)
        if fitted is None or previous is None:
            return fitted, None, chosen
        continuation = continue_clusters(fitted, previous, spec)
        return continuation.model, continuation, chosen

    @property
    def _parts(self) -> Iterator[int]:
        return (part for group in self.groups for part in group)

    def _read(self, part: int, columns: Sequence[str]) -> pa.Table:
        return pq.read_table(
            customers_file(self.scratch, part), columns=list(columns), partitioning=None
        )

    def _sample(self, seed: int) -> pa.Table:
        """Customers for scales and clusters, the same ones whatever the parts."""
        wanted = [*self.spec.clusters.features, *self.spec.composite.measures]
        columns = list(dict.fromkeys(["user_id", *wanted]))
        share = min(1.0, self.spec.clusters.sample_size / self.num_customers)
        drawn = []
        for part in self._parts:
            names = pq.read_schema(customers_file(self.scratch, part)).names
            rows = self._read(part, [name for name in columns if name in names])
            hashes = _hashes(rows["user_id"], seed)
            drawn.append(rows.filter(pa.array(hashes < share)))
        return pa.concat_tables(drawn).sort_by("user_id")

    def _small(self, sizes: dict[str, int]) -> frozenset[str]:
        """Groups that somebody is in, but too few to be named; never just one such group.

        Who sees every other group could subtract: a single hidden group takes the next smallest
        along, until the hidden ones together are many enough.
        """
        minimum = self.spec.min_segment_size
        present = sorted((number, name) for name, number in sizes.items() if number)
        hidden: list[str] = []
        number_hidden = 0
        for number, name in present:
            if number >= minimum and (not hidden or number_hidden >= minimum):
                break
            hidden.append(name)
            number_hidden += number
        return frozenset(hidden)

    def _write_items(self, catalog: pa.Table) -> None:
        counts = [
            pq.read_table(items_file(self.scratch, part), partitioning=None) for part in self._parts
        ]
        instants = {"as_of": self.as_of, "created": self.created}
        item_ids = catalog["item_id"].combine_chunks()
        popularity = popularity_rows(counts, item_ids, **instants)
        self.sink.write_part(ITEM_PROFILE.name, self.as_of, 0, profile_rows(catalog, **instants))
        self.sink.write_part(ITEM_POPULARITY.name, self.as_of, 0, popularity)

    def _summarize(
        self, standing: Standing | None, continuation: Continuation | None
    ) -> WeekSummary:
        before = None
        if standing is not None:
            before = _read_views(self.sink, standing.as_of, _LABELS)
        rows = _read_views(self.sink, self.as_of, SUMMARY_COLUMNS)
        return summarize_week(
            rows,
            before,
            as_of=self.as_of,
            spec=self.spec.monitor,
            min_segment_size=self.spec.min_segment_size,
            cluster_changes=continuation.changed if continuation else (),
        )


def customers_file(folder: Path, part: int) -> Path:
    """Where the measures of one event file's customers wait."""
    return folder / f"customers-{part:05d}.parquet"


def items_file(folder: Path, part: int) -> Path:
    """Where its counts of items wait."""
    return folder / f"items-{part:05d}.parquet"


def _read_group(group: Sequence[int], scratch: Path) -> pa.Table:
    files = [customers_file(scratch, part) for part in group]
    return pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])


def _cluster_sizes(group: Sequence[int], *, scorer: Scorer, scratch: Path) -> dict[str, int]:
    return scorer.cluster_sizes(_read_group(group, scratch))


def _write_part(
    numbered: tuple[int, Sequence[int]],
    *,
    scorer: Scorer,
    scratch: Path,
    as_of: datetime,
    created: datetime,
    sink: RowSink,
) -> None:
    part, group = numbered
    rows = scorer.rows(_read_group(group, scratch), as_of=as_of, created=created)
    for view, table in rows.items():
        sink.write_part(view, as_of, part, table)


def _read_views(sink: RowSink, as_of: datetime, columns: Mapping[str, Sequence[str]]) -> pa.Table:
    """Columns of several views side by side; the views of an instant share users and order."""
    joined: dict[str, Any] = {}
    for view, names in columns.items():
        table = sink.read_rows(view, as_of, columns=list(names))
        joined |= {name: table[name] for name in names}
    return pa.table(joined)


def _hashes(user_ids: pa.ChunkedArray, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A number in 0 to 1 per customer, the same on every machine."""
    ids = user_ids.to_numpy()
    key = f"{seed:016d}"[-16:]
    return pd.util.hash_array(ids, hash_key=key, categorize=False) / 2.0**64
