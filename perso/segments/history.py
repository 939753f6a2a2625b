"""Segments as of one instant after another: measured in one pass, scored in order.

Decides the order of work. One pass over the event files measures every customer as of every
instant, each file on its own. Then, from the oldest instant to the newest, scales and clusters are
fitted (clusters follow on from those of the instant before, so that names stay), parts are scored
in parallel, written, and summed up. Where the work runs and where rows go is the caller's: this
file is given a ``map`` and a sink.

Whoever runs this holds two numbers of every customer for the cuts and some twenty for the summary:
about 200 bytes a customer, 2 GB at ten million. Measures wait on disk, about 400 bytes a customer
and instant, until their instant is done.
"""

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import pyarrow.compute as pc
import pyarrow.parquet as pq

from perso.segments.attributes import read_attributes
from perso.segments.instant import InstantRun, MapParts, RowSink, customers_file, items_file
from perso.segments.measures import measure
from perso.segments.partition import EVENT_COLUMNS, Partition
from perso.segments.spec import SegmentSpec
from perso.segments.standing import instant_name, last_standing
from perso.segments.summary import WeekSummary

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

CUSTOMERS_PER_PART: Final = 100_000
"""A written part holds about so many customers: small files are slow to read back."""

_SCRATCH: Final = ".measures-"
_ABANDONED_AFTER_S: Final = 7 * 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Input:
    """What is segmented."""

    event_files: Sequence[Path]
    """One per user partition: all events of a customer are in one file."""
    catalog_file: Path
    """CATALOG_SCHEMA rows."""


def as_of_steps(first: datetime, last: datetime, *, step_weeks: int) -> list[datetime]:
    """Instants a step apart that end with ``last``, none before ``first``.

    Raises:
        ValueError: If ``first`` is after ``last``.
    """
    if first > last:
        raise ValueError(f"the first instant {first} is after the last one {last}")
    step = timedelta(weeks=step_weeks)
    return [last - i * step for i in reversed(range((last - first) // step + 1))]


def segment_history(
    given: Input,
    as_ofs: Sequence[datetime],
    *,
    spec: SegmentSpec,
    sink: RowSink,
    folder: Path,
    seed: int = 0,
    created: datetime | None = None,
    map_files: MapParts | None = None,
    map_parts: MapParts | None = None,
) -> list[WeekSummary]:
    """Write the rows of every instant, oldest first; returns what to tell of each.

    ``folder`` keeps, per instant, the summary and the fit of the clusters; a later call follows
    on from the newest instant there that is before its own first.

    Args:
        given: Events and catalogue.
        as_ofs: Aware instants; one that is there already is written anew.
        spec: How customers are measured, scored and grouped.
        sink: Where rows go.
        folder: A folder of its own on a disk that every worker sees.
        seed: Of samples and fits.
        created: From when the rows count as known; None for a replay, where each instant's rows
            count from the instant on.
        map_files: Runs the pass over the event files; plain ``map`` where not given.
        map_parts: Runs the scoring of parts; plain ``map`` where not given.

    Raises:
        ValueError: If no instant is given or one has no time zone.
        InputError: If no customer has an event before one of the instants, or the customer file
            cannot be read.
        ArtifactError: If a customer's events are spread over two files.
    """
    instants = sorted(set(as_ofs))
    if not instants:
        raise ValueError("as_ofs is empty; give at least one instant")
    over_files, over_parts = map_files or _map_here, map_parts or _map_here
    # Its own: a run that is started twice by mistake must not lose its measures to the other.
    scratch = folder / f"{_SCRATCH}{uuid.uuid4().hex[:8]}"
    _remove_abandoned(folder)
    started = time.perf_counter()
    try:
        measure = partial(
            _measure_file, instants=instants, catalog_file=given.catalog_file, spec=spec,
            scratch=scratch,
        )  # fmt: skip
        counted = over_files(measure, list(enumerate(given.event_files)))
        logger.info(
            "segments: %d event files measured as of %d instants (%.1f s)",
            len(given.event_files),
            len(instants),
            time.perf_counter() - started,
        )
        catalog = pq.read_table(given.catalog_file, partitioning=None)
        standing = last_standing(folder, before=instants[0])
        summaries = []
        for place, as_of in enumerate(instants):
            sizes = [sizes_by_instant[place] for sizes_by_instant in counted]
            step = InstantRun(
                as_of=as_of,
                created=created or as_of,
                spec=spec,
                sink=sink,
                scratch=scratch / instant_name(as_of),
                groups=_group(sizes),
                num_customers=sum(sizes),
            )
            summary, standing = step.run(standing, catalog, over_parts, folder=folder, seed=seed)
            summaries.append(summary)
        return summaries
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Free what killed runs left; no run takes a week."""
    for left in folder.glob(f"{_SCRATCH}*"):
        if time.time() - left.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(left, ignore_errors=True)


def _measure_file(
    numbered: tuple[int, Path],
    *,
    instants: Sequence[datetime],
    catalog_file: Path,
    spec: SegmentSpec,
    scratch: Path,
) -> list[int]:
    """Measure one event file as of every instant; returns how many customers each had."""
    part, file = numbered
    events = pq.read_table(file, columns=list(EVENT_COLUMNS), partitioning=None)
    attributes = None
    if spec.measures.attributes is not None:
        users = pc.unique(events["user_id"]).drop_null()
        attributes = read_attributes(spec.measures.attributes, users)
    partition = Partition(
        events,
        catalog=pq.read_table(catalog_file, partitioning=None),
        spec=spec.measures,
        attributes=attributes,
    )
    sizes = []
    for as_of in instants:
        measured = measure(partition, as_of)
        folder = scratch / instant_name(as_of)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(measured.customers, customers_file(folder, part))
        pq.write_table(measured.items, items_file(folder, part))
        sizes.append(len(measured.customers))
    return sizes


def _group(sizes: Sequence[int]) -> list[list[int]]:
    """Consecutive parts until each group holds about CUSTOMERS_PER_PART."""
    groups: list[list[int]] = [[]]
    held = 0
    for part, size in enumerate(sizes):
        if groups[-1] and held + size > CUSTOMERS_PER_PART:
            groups.append([])
            held = 0
        groups[-1].append(part)
        held += size
    return groups


def _map_here(function: Callable[[T], R], items: Sequence[T], /) -> list[R]:
    return [function(item) for item in items]
