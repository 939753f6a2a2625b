"""What is known about a customer or an item: one view per table of the dictionary."""

from datetime import timedelta

import pyarrow as pa
from data_sources import rows_of, user_recent_events_push
from entities import item, user
from feast import FeatureView, Field
from feast.data_source import DataSource
from feast.types import Array, Bool, Float32, Float64, Int64, String, UnixTimestamp

import perso.dictionary as known
from perso.schema import TIMESTAMP

TYPES = {
    pa.string(): String,
    pa.int64(): Int64,
    pa.float32(): Float32,
    pa.float64(): Float64,
    pa.bool_(): Bool,
    TIMESTAMP: UnixTimestamp,
    pa.list_(pa.string()): Array(String),
    pa.list_(pa.float32()): Array(Float32),
}


def _field(feature: known.Feature) -> Field:
    null = f"Null: {feature.null}." if feature.null else "Never null."
    return Field(
        name=feature.name,
        dtype=TYPES[feature.type],
        description=f"{feature.description} Unit: {feature.unit}. Window: {feature.window}. {null}",
        tags={"unit": feature.unit, "window": feature.window, "owner": feature.owner},
    )


def _view(view: known.View, source: DataSource | None = None) -> FeatureView:
    entity = {known.USER: user, known.ITEM: item}[view.entity]
    return FeatureView(
        name=view.name,
        entities=[entity],
        ttl=timedelta(days=view.ttl_days),
        schema=[
            Field(name=view.entity, dtype=String, description=entity.description),
            *map(_field, view.features),
        ],
        source=source or rows_of(view),
        online=True,
        description=view.description,
        owner=known.OWNER,
        tags={"status": "stable", "entity": view.entity, "source": view.source},
    )


user_activity = _view(known.USER_ACTIVITY)
user_profile = _view(known.USER_PROFILE)
user_rfm = _view(known.USER_RFM)
user_clusters = _view(known.USER_CLUSTERS)
user_affinities = _view(known.USER_AFFINITIES)
user_recent_events = _view(known.USER_RECENT_EVENTS, user_recent_events_push)
item_profile = _view(known.ITEM_PROFILE)
item_popularity = _view(known.ITEM_POPULARITY)

VIEWS = {
    view.name: view
    for view in (
        user_activity,
        user_profile,
        user_rfm,
        user_clusters,
        user_affinities,
        user_recent_events,
        item_profile,
        item_popularity,
    )
}
