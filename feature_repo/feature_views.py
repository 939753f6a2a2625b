"""What is known about a customer. One view: each view is one more online read."""

from datetime import timedelta

from data_sources import user_rfm_push
from entities import OWNER, user
from feast import FeatureView, Field
from feast.types import Float32, Float64, Int64, String

user_rfm = FeatureView(
    name="user_rfm",
    entities=[user],
    ttl=timedelta(days=365),
    schema=[
        Field(name="user_id", dtype=String, description="The customer."),
        Field(
            name="recency_days",
            dtype=Float32,
            description="Days since the last purchase; null: never bought.",
        ),
        Field(
            name="frequency",
            dtype=Int64,
            description="Orders in the window of the segment spec, half a year by default.",
        ),
        Field(name="monetary", dtype=Float64, description="Total spend so far."),
        Field(
            name="recency_score",
            dtype=Int64,
            description="Quintile among buyers, 5 the most recent; 0: never bought.",
        ),
        Field(
            name="frequency_score",
            dtype=Int64,
            description="Quintile among buyers, 5 the most orders; 0: never bought.",
        ),
        Field(
            name="monetary_score",
            dtype=Int64,
            description="Quintile among buyers, 5 the highest spend; 0: never bought.",
        ),
        Field(
            name="segment",
            dtype=String,
            description="The named segment of the three scores; browsers: never bought.",
        ),
    ],
    source=user_rfm_push,
    online=True,
    description="Recency, frequency, monetary value and segment of a customer.",
    owner=OWNER,
    tags={"status": "stable"},
)
