"""Segments on a Ray cluster: one pass over the event files with Ray Data, then parts as tasks.

All rules are in ``perso.segments``; this file moves functions to where the files are.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import ray
import ray.data

from perso.data.prepared import PreparedData
from perso.distributed.cluster import own_errors
from perso.features.rows import FeatureRows
from perso.segments.history import Input, segment_history
from perso.segments.spec import SegmentSpec
from perso.segments.summary import WeekSummary
from perso.workspace import Workspace

T = TypeVar("T")
R = TypeVar("R")


def segment_customers(
    data: PreparedData,
    workspace: Workspace,
    *,
    as_ofs: Sequence[datetime],
    spec: SegmentSpec,
    seed: int = 0,
    created: datetime | None = None,
) -> list[WeekSummary]:
    """Write every feature row as of each instant; needs a connected Ray.

    The same rows as :func:`perso.segments.history.segment_history` writes without Ray. A worker
    holds one event file; the driver holds no event, and about 200 bytes a customer. The
    workspace lies on a disk that every node sees.

    Args:
        data: The prepared dataset.
        workspace: Where rows and summaries go.
        as_ofs: Aware instants; an event at or after one is not counted for it.
        spec: How customers are measured, scored and grouped.
        seed: Of samples and fits.
        created: From when the rows count as known; None for a replay.

    Raises:
        ValueError: If no instant is given or one has no time zone.
        InputError: If no customer has an event before one of the instants.
        ArtifactError: If a customer's events are spread over two files.
    """
    return segment_history(
        Input(event_files=data.event_files, catalog_file=data.folder / "catalog.parquet"),
        as_ofs,
        spec=spec,
        sink=FeatureRows(workspace),
        folder=workspace.segments,
        seed=seed,
        created=created,
        map_files=_map_with_ray_data,
        map_parts=_map_with_tasks,
    )


def _map_with_ray_data(function: Callable[[T], R], items: Sequence[T], /) -> list[R]:
    """Results travel in a column of Python objects, each a few numbers."""
    numbered = [{"place": place} for place in range(len(items))]

    def apply(row: dict[str, Any]) -> dict[str, Any]:
        place = int(row["place"])
        return {"place": place, "result": [function(items[place])]}

    with own_errors():
        rows = ray.data.from_items(numbered, override_num_blocks=len(items)).map(apply).take_all()
    return [row["result"][0] for row in sorted(rows, key=lambda row: int(row["place"]))]


def _map_with_tasks(function: Callable[[T], R], items: Sequence[T], /) -> list[R]:
    if len(items) == 1:  # a task would cost more than it spreads
        return [function(items[0])]
    shared = ray.put(function)
    with own_errors():
        results: list[R] = ray.get([_apply.remote(shared, item) for item in items])
    return results


@ray.remote
def _apply(function: Callable[[T], R], item: T) -> R:
    return function(item)
