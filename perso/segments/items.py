"""Items as features: the catalogue's card, and counts of all partitions added up."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa

from perso.dictionary import ITEM_POPULARITY, ITEM_PROFILE
from perso.segments.measures import ITEM_COUNTS_SCHEMA

_COUNTS: Final = ITEM_COUNTS_SCHEMA.names[1:]


def profile_rows(catalog: pa.Table, *, as_of: datetime, created: datetime) -> pa.Table:
    """``item_profile`` rows of every item of the catalogue.

    A catalogue says what holds now, not what held at a past instant.

    Args:
        catalog: CATALOG_SCHEMA rows.
        as_of: Becomes ``event_timestamp``.
        created: From when the rows count as known.
    """
    empty = pa.scalar([], pa.list_(pa.string()))
    columns = {name: catalog[name] for name in ITEM_PROFILE.feature_names}
    columns |= {name: pa.compute.fill_null(columns[name], empty) for name in ("categories", "tags")}
    return _rows(ITEM_PROFILE.schema, catalog["item_id"], columns, as_of, created)


def popularity_rows(
    counts: Iterable[pa.Table], item_ids: pa.Array, *, as_of: datetime, created: datetime
) -> pa.Table:
    """``item_popularity`` rows of every item; an item that nobody touched has zeros.

    Args:
        counts: ITEM_COUNTS_SCHEMA rows of the partitions; customers are in one partition each,
            so buyers add up.
        item_ids: Every item, once; counts of others (new since the catalogue) follow.
        as_of: Becomes ``event_timestamp``.
        created: From when the rows count as known.
    """
    zeros = {name: pa.nulls(len(item_ids), ITEM_COUNTS_SCHEMA.field(name).type) for name in _COUNTS}
    everything = pa.table({"item_id": item_ids, **zeros}, schema=ITEM_COUNTS_SCHEMA)
    summed = (
        pa.concat_tables([everything, *counts])
        .group_by("item_id", use_threads=False)
        .aggregate([(name, "sum") for name in _COUNTS])
        .sort_by("item_id")
    )
    columns = {name: pa.compute.fill_null(summed[f"{name}_sum"], 0) for name in _COUNTS}
    order = np.lexsort([-columns["item_views"].to_numpy(), -columns["item_buyers"].to_numpy()])
    keys = np.stack([columns[name].to_numpy()[order] for name in ("item_buyers", "item_views")])
    is_next = np.concatenate([[True], (np.diff(keys, axis=1) != 0).any(axis=0)])[: len(order)]
    places = np.arange(1, len(order) + 1)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.maximum.accumulate(np.where(is_next, places, 1))
    columns["item_rank"] = pa.array(ranks)
    return _rows(ITEM_POPULARITY.schema, summed["item_id"], columns, as_of, created)


def _rows(
    schema: pa.Schema,
    item_ids: pa.Array,
    columns: dict[str, pa.Array],
    as_of: datetime,
    created: datetime,
) -> pa.Table:
    keys = {
        "item_id": item_ids,
        "event_timestamp": pa.repeat(pa.scalar(as_of, schema.field(1).type), len(item_ids)),
        "created": pa.repeat(pa.scalar(created, schema.field(2).type), len(item_ids)),
    }
    return pa.table({**keys, **columns}).select(schema.names).cast(schema)
