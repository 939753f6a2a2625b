"""Past features: of each row what was true and known at the row's own time.

Of each view the row with the latest ``event_timestamp`` at or before the asked time is taken, out
of those ``created`` by then and not older than the view's time to live. The join is Feast's, by
duckdb: about 20 s for a million asked and a million written rows of a view on two cores.
"""

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import pyarrow as pa

from perso.dictionary import CREATED, EVENT_TIMESTAMP, Service
from perso.schema import TIMESTAMP

_ROW: Final = "asked_row"


def feature_schema(service: Service) -> pa.Schema:
    """The feature columns of a service, all nullable: nothing may be known."""
    return pa.schema(
        [
            view.schema.field(name).with_nullable(True)
            for view, names in service.views()
            for name in names
        ]
    )


def join_past_features(
    feast_store: Any, rows: pa.Table, service: Service, written: Collection[str]
) -> pa.Table:
    """The rows with the service's columns appended; order, count and other columns are kept.

    Args:
        feast_store: Feast's FeatureStore.
        rows: The service's key column and ``event_timestamp`` (aware), and any others. A null key
            knows nothing.
        service: Which features.
        written: The views that have rows at all: duckdb refuses to read a pattern without files, so
            the others are null without asking.
    """
    entity = service.views()[0][0].entity
    schema = feature_schema(service)
    references = [
        f"{view.name}:{name}"
        for view, names in service.views()
        for name in names
        if view.name in written
    ]
    if not len(rows) or not references:
        return _appended(rows, pa.table([pa.nulls(len(rows), f.type) for f in schema], schema))
    asked = pa.table(
        {
            entity: rows[entity].cast(pa.string()),
            EVENT_TIMESTAMP: rows[EVENT_TIMESTAMP].cast(TIMESTAMP, safe=False),
        }
    )
    # Each pair is joined once, whatever the number of candidates that share it.
    pairs = asked.group_by(asked.column_names, use_threads=False).aggregate([])
    numbered = pairs.append_column(_ROW, pa.array(np.arange(len(pairs))))
    found = feast_store.get_historical_features(
        entity_df=numbered.to_pandas(),
        features=references,
        filter_by_created_timestamp=True,  # off, backfilled rows leak into the past
    ).to_arrow()
    found = found.sort_by(_ROW)
    for name in set(schema.names) - set(found.column_names):
        found = found.append_column(name, pa.nulls(len(found), schema.field(name).type))
    found = found.select(schema.names).cast(schema)
    places = asked.append_column("place", pa.array(np.arange(len(asked)))).join(
        numbered, keys=asked.column_names, join_type="left outer", use_threads=False
    )
    order = places.sort_by("place")[_ROW]
    return _appended(rows, found.take(order))


def check_rows(rows: pa.Table, service: Service) -> None:
    """Refuse rows that the features of a service cannot be joined to.

    Raises:
        ValueError: If a column is missing, the timestamps are not aware or null, or a column has
            the name of a feature.
    """
    entity = service.views()[0][0].entity
    schema = feature_schema(service)
    for needed in (entity, EVENT_TIMESTAMP):
        if needed not in rows.column_names:
            raise ValueError(f"rows have no column {needed}; they have: {rows.column_names}")
    kind = rows.schema.field(EVENT_TIMESTAMP).type
    if not pa.types.is_timestamp(kind) or kind.tz is None:
        raise ValueError(
            f"{EVENT_TIMESTAMP} is {kind}; give instants with a time zone, such as {TIMESTAMP}"
        )
    if rows[EVENT_TIMESTAMP].null_count:
        raise ValueError(f"{EVENT_TIMESTAMP} is null in {rows[EVENT_TIMESTAMP].null_count} rows")
    taken = sorted({*schema.names, CREATED, _ROW} & set(rows.column_names))
    if taken:
        raise ValueError(f"rows already have columns {taken}, the names of features; rename them")


def _appended(rows: pa.Table, features: pa.Table) -> pa.Table:
    for field in features.schema:
        rows = rows.append_column(field, features[field.name])
    return rows
