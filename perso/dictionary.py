"""Every feature that leaves perso: its name, unit, window, owner, and what a null means.

One table for everybody: the Arrow schemas of feature rows, the declarations of ``feature_repo``,
``perso segments describe`` and the consumers' guide are all made from it, so none can drift from
the others. How a feature is computed stands beside the code that computes it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import pyarrow as pa

from perso.schema import TIMESTAMP

OWNER: Final = "perso"
USER: Final = "user_id"
ITEM: Final = "item_id"
EVENT_TIMESTAMP: Final = "event_timestamp"
CREATED: Final = "created"

Entity = Literal["user_id", "item_id"]
Source = Literal["rows", "push"]

_TEXTS: Final = pa.list_(pa.string())
_SHARES: Final = pa.list_(pa.float32())
_WINDOW: Final = "window"
_NOW: Final = "as of"


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of a feature view."""

    name: str
    """Unique over all views."""
    type: pa.DataType
    """Arrow type; lists are of strings or of float32."""
    description: str
    """One sentence."""
    unit: str
    """What a number counts: days, orders, share; label or id for text."""
    window: str
    """Over which time: ``window`` (of the segment spec, 26 weeks by default), ``6 months``,
    ``lifetime``, or ``as of`` (the state at that instant)."""
    null: str | None = None
    """What a null means; None where there never is one."""
    owner: str = OWNER
    """Who answers questions about it."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One feature view: columns that are computed, written and read together."""

    name: str
    """Feast's name, and the folder of its rows."""
    entity: Entity
    """The key column."""
    ttl_days: int
    """Older rows are unknown in a point-in-time join. Feast does not apply it online."""
    description: str
    """One sentence."""
    features: tuple[Feature, ...]
    """In the order of the columns."""
    source: Source = "rows"
    """``push`` where events bring newer values online between two runs."""

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of a row: key, ``event_timestamp``, ``created``, then the features.

        The event timestamp is the as-of instant; a row counts as known from ``created``.
        """
        keys = [
            pa.field(self.entity, pa.string(), nullable=False),
            pa.field(EVENT_TIMESTAMP, TIMESTAMP, nullable=False),
            pa.field(CREATED, TIMESTAMP, nullable=False),
        ]
        return pa.schema(
            keys + [pa.field(f.name, f.type, nullable=f.null is not None) for f in self.features]
        )

    @property
    def feature_names(self) -> list[str]:
        """The columns without the keys."""
        return [feature.name for feature in self.features]


@dataclass(frozen=True, kw_only=True)
class Service:
    """One released contract: views, or some of their columns."""

    name: str
    """Ends in its version: a change that could break a reader gets a new one."""
    description: str
    """One sentence."""
    audience: str
    """Who relies on it."""
    columns: tuple[tuple[str, tuple[str, ...] | None], ...]
    """Per view its columns, None for all."""

    def views(self) -> list[tuple[View, list[str]]]:
        """Each view with the columns that the service gives of it."""
        return [
            (VIEWS[name], list(columns) if columns else VIEWS[name].feature_names)
            for name, columns in self.columns
        ]

    @property
    def feature_names(self) -> list[str]:
        """Every column of the service, without keys."""
        return [name for _, columns in self.views() for name in columns]


def _feature(
    name: str,
    type_: pa.DataType,
    unit: str,
    window: str,
    description: str,
    null: str | None = None,
) -> Feature:
    return Feature(
        name=name, type=type_, unit=unit, window=window, description=description, null=null
    )


USER_ACTIVITY: Final = View(
    name="user_activity",
    entity=USER,
    ttl_days=365,
    description="What a customer did: visits, depth, orders, returns, habits.",
    features=(
        _feature(
            "days_since_event", pa.float32(), "days", "lifetime", "Time since the last event."
        ),
        _feature("tenure_days", pa.float32(), "days", "lifetime", "Time since the first event."),
        _feature("num_events", pa.int64(), "events", _WINDOW, "Everything that was recorded."),
        _feature(
            "num_sessions",
            pa.int64(),
            "visits",
            _WINDOW,
            "Visits: one session_id, or events less than the session gap apart.",
        ),
        _feature("num_views", pa.int64(), "events", _WINDOW, "Items looked at."),
        _feature(
            "browsing_depth",
            pa.float32(),
            "views per visit",
            _WINDOW,
            "Items looked at in a visit, on average.",
            "no visit in the window",
        ),
        _feature("num_orders", pa.int64(), "orders", _WINDOW, "Purchases, a basket counting once."),
        _feature("spend", pa.float64(), "currency", _WINDOW, "Revenue less refunds."),
        _feature(
            "average_order_value",
            pa.float64(),
            "currency per order",
            _WINDOW,
            "Spend per order.",
            "no order in the window",
        ),
        _feature(
            "cart_abandonment_rate",
            pa.float32(),
            "share, 0 to 1",
            _WINDOW,
            "Of the items put into a cart, those not bought.",
            "nothing was put into a cart",
        ),
        _feature(
            "return_rate",
            pa.float32(),
            "share, 0 to 1",
            _WINDOW,
            "Of the pieces bought, those sent back.",
            "nothing was bought",
        ),
        _feature(
            "discount_share",
            pa.float32(),
            "share, 0 to 1",
            _WINDOW,
            "Of the lines bought that tell list price and revenue, those below list price.",
            "no line tells both",
        ),
        _feature(
            "category_entropy",
            pa.float32(),
            "bits",
            _WINDOW,
            "How widely interest is spread over categories; 0: one category.",
            "no event on an item with a category",
        ),
        _feature(
            "preferred_daypart",
            pa.string(),
            "label",
            _WINDOW,
            "The daypart with most events: night, morning, afternoon, evening (UTC).",
            "no event in the window",
        ),
        *(
            _feature(
                f"{daypart}_share",
                pa.float32(),
                "share, 0 to 1",
                _WINDOW,
                f"Share of the events in the {daypart}.",
                "no event in the window",
            )
            for daypart in ("night", "morning", "afternoon", "evening")
        ),
        _feature(
            "preferred_device",
            pa.string(),
            "label",
            _WINDOW,
            "The device with most events.",
            "no event tells a device",
        ),
        _feature(
            "mobile_share",
            pa.float32(),
            "share, 0 to 1",
            _WINDOW,
            "Of the events that tell a device, those on a phone.",
            "no event tells a device",
        ),
        _feature(
            "mean_dwell_s",
            pa.float32(),
            "seconds",
            _WINDOW,
            "Mean of the dwell events.",
            "no dwell event",
        ),
    ),
)

USER_PROFILE: Final = View(
    name="user_profile",
    entity=USER,
    ttl_days=365,
    description="Who a customer is, as far as the shop's customer file says.",
    features=(
        _feature("age_band", pa.string(), "label", _NOW, "Age in bands of ten years.", "not given"),
        _feature("gender", pa.string(), "label", _NOW, "As given.", "not given"),
        _feature(
            "location",
            pa.string(),
            "label",
            _WINDOW,
            "As given, else the region with most events.",
            "neither given nor told by an event",
        ),
    ),
)

USER_RFM: Final = View(
    name="user_rfm",
    entity=USER,
    ttl_days=365,
    description="Recency, frequency, monetary value, the segment they add up to, and a score.",
    features=(
        _feature(
            "recency_days",
            pa.float32(),
            "days",
            "lifetime",
            "Time since the last purchase.",
            "never bought",
        ),
        _feature(
            "recency_score",
            pa.int64(),
            "1 to 100",
            "lifetime",
            "Recency on a scale: 100 just now, 1 the spec's horizon ago or more; 0: never bought.",
        ),
        _feature("frequency", pa.int64(), "orders", "6 months", "Orders in the last six months."),
        _feature(
            "frequency_quartile",
            pa.int64(),
            "1 to 4",
            "6 months",
            "Quartile of frequency among buyers, 4 the most orders; 0: never bought.",
        ),
        _feature("monetary", pa.float64(), "currency", "lifetime", "Total spend less refunds."),
        _feature(
            "monetary_tier",
            pa.int64(),
            "1 to 4",
            "lifetime",
            "Tier of total spend, 4 the highest; 0: never bought.",
        ),
        _feature(
            "rfm_score",
            pa.float32(),
            "0 to 100",
            "lifetime",
            "Weighted mean of the three on one scale; 0: never bought.",
        ),
        _feature(
            "segment",
            pa.string(),
            "label",
            "lifetime",
            "The named segment of the cube's cell; other: too few customers to name.",
        ),
        _feature(
            "composite_score",
            pa.float32(),
            "0 to 1",
            _WINDOW,
            "Weighted sum of the spec's dimensions, each on a robust scale.",
        ),
        _feature(
            "score_dimensions",
            _TEXTS,
            "labels",
            _WINDOW,
            "The dimensions of the composite score, in the order of the contributions.",
        ),
        _feature(
            "score_contributions",
            _SHARES,
            "0 to 1",
            _WINDOW,
            "What each dimension adds to the composite score; they add up to it.",
        ),
    ),
)

USER_CLUSTERS: Final = View(
    name="user_clusters",
    entity=USER,
    ttl_days=365,
    description="The group of like customers that a clustering puts a customer in.",
    features=(
        _feature(
            "cluster",
            pa.string(),
            "id",
            _WINDOW,
            "Stable id of the cluster, kept over refits; noise: like nobody.",
            "no clusters were fitted, or too few customers to name",
        ),
        _feature(
            "cluster_label",
            pa.string(),
            "label",
            _WINDOW,
            "What sets the cluster apart, in words.",
            "as cluster",
        ),
        _feature(
            "cluster_membership",
            pa.float32(),
            "share, 0 to 1",
            _WINDOW,
            "Certainty that the customer belongs to the cluster.",
            "as cluster, and for noise",
        ),
        _feature(
            "member_of",
            _TEXTS,
            "ids",
            _WINDOW,
            "Clusters with a membership of at least 0.05, most certain first.",
            "as cluster",
        ),
        _feature(
            "memberships",
            _SHARES,
            "share, 0 to 1",
            _WINDOW,
            "The memberships of member_of.",
            "as cluster",
        ),
        _feature(
            "cluster_fit",
            pa.string(),
            "id",
            _NOW,
            "The fit that assigned the cluster.",
            "no clusters were fitted",
        ),
    ),
)

USER_AFFINITIES: Final = View(
    name="user_affinities",
    entity=USER,
    ttl_days=365,
    description="What a customer likes, and how much they engage.",
    features=(
        *(
            feature
            for kind, of_what in (
                ("categories", "catalogue categories"),
                ("brands", "brands"),
                ("lifestyle_tags", "catalogue tags"),
            )
            for feature in (
                _feature(
                    f"top_{kind}",
                    _TEXTS,
                    "labels",
                    _WINDOW,
                    f"The {of_what} with most weight, best first; empty: none known.",
                ),
                _feature(
                    f"top_{kind}_weights",
                    _SHARES,
                    "share, 0 to 1",
                    _WINDOW,
                    f"Share of the customer's weight on each of top_{kind}.",
                ),
            )
        ),
        _feature(
            "engagement",
            pa.float32(),
            "0 to 1",
            _WINDOW,
            "Depth of visits and dwell on a saturating scale; 0: nothing in the window.",
        ),
        _feature(
            "engagement_level",
            pa.string(),
            "label",
            _WINDOW,
            "low, medium or high, by the spec's cuts of engagement.",
        ),
    ),
)

USER_RECENT_EVENTS: Final = View(
    name="user_recent_events",
    entity=USER,
    ttl_days=365,
    source="push",
    description="What a customer did last; the service pushes it as events come in.",
    features=(
        _feature("last_event_at", TIMESTAMP, "instant", "lifetime", "When the last event was."),
        _feature("last_event_type", pa.string(), "label", "lifetime", "What it was."),
        _feature("last_item_id", pa.string(), "id", "lifetime", "The item it was on."),
        _feature(
            "recent_item_ids",
            _TEXTS,
            "ids",
            "lifetime",
            "Distinct items touched, newest first, at most 20.",
        ),
    ),
)

ITEM_PROFILE: Final = View(
    name="item_profile",
    entity=ITEM,
    ttl_days=365,
    description="An item's card.",
    features=(
        _feature("title", pa.string(), "text", _NOW, "Name in the shop.", "unknown"),
        _feature("price", pa.float64(), "currency", _NOW, "Price of one piece.", "unknown"),
        _feature("currency", pa.string(), "ISO 4217", _NOW, "Of the price.", "unknown"),
        _feature("categories", _TEXTS, "labels", _NOW, "Empty: unknown."),
        _feature("brand", pa.string(), "label", _NOW, "Who makes it.", "unknown"),
        _feature("tags", _TEXTS, "labels", _NOW, "Empty: unknown."),
        _feature(
            "in_stock", pa.bool_(), "yes or no", _NOW, "Can be bought.", "unknown, taken as yes"
        ),
    ),
)

ITEM_POPULARITY: Final = View(
    name="item_popularity",
    entity=ITEM,
    ttl_days=365,
    description="How much an item was looked at and bought.",
    features=(
        _feature("item_views", pa.int64(), "events", _WINDOW, "Times it was looked at."),
        _feature("item_carts", pa.int64(), "events", _WINDOW, "Times it was put into a cart."),
        _feature("item_purchases", pa.int64(), "events", _WINDOW, "Times it was bought."),
        _feature("item_buyers", pa.int64(), "customers", _WINDOW, "Customers who bought it."),
        _feature("item_revenue", pa.float64(), "currency", _WINDOW, "Revenue less refunds."),
        _feature(
            "item_rank",
            pa.int64(),
            "1 is best",
            _WINDOW,
            "Place among all items by buyers, then views; equal items share the better place.",
        ),
    ),
)

_ALL_VIEWS: Final = (
    USER_ACTIVITY,
    USER_PROFILE,
    USER_RFM,
    USER_CLUSTERS,
    USER_AFFINITIES,
    USER_RECENT_EVENTS,
    ITEM_PROFILE,
    ITEM_POPULARITY,
)
VIEWS: Final[dict[str, View]] = {view.name: view for view in _ALL_VIEWS}
"""Every feature view by name."""

USER_SEGMENTS_V1: Final = Service(
    name="user_segments_v1",
    description="Customer segments for other teams: e-mail, ads, reporting.",
    audience="all teams",
    columns=(
        ("user_rfm", None),
        ("user_clusters", None),
        ("user_activity", None),
        ("user_affinities", None),
        ("user_profile", None),
    ),
)
RECOMMENDER_V1: Final = Service(
    name="recommender_v1",
    description="What the recommender reads, in training and in serving alike.",
    audience="perso",
    columns=(
        ("user_rfm", None),
        ("user_clusters", ("cluster", "cluster_label", "cluster_membership")),
        ("user_affinities", None),
        ("user_recent_events", None),
    ),
)
ITEMS_V1: Final = Service(
    name="items_v1",
    description="An item's card and its popularity.",
    audience="all teams",
    columns=(("item_profile", None), ("item_popularity", None)),
)
SERVICES: Final[dict[str, Service]] = {
    service.name: service for service in (USER_SEGMENTS_V1, RECOMMENDER_V1, ITEMS_V1)
}
"""Every feature service by name."""


def describe(views: Iterable[View] = _ALL_VIEWS) -> list[dict[str, Any]]:
    """The dictionary as rows: view, name, type, unit, window, null, owner, services, description.

    Example:
        >>> row = next(r for r in describe() if r["name"] == "recency_days")
        >>> row["view"], row["unit"], row["null"]
        ('user_rfm', 'days', 'never bought')
    """
    return [
        {
            "view": view.name,
            "name": feature.name,
            "type": str(feature.type),
            "unit": feature.unit,
            "window": feature.window,
            "null": feature.null or "never null",
            "owner": feature.owner,
            "services": [s.name for s in SERVICES.values() if _has(s, view, feature)],
            "description": feature.description,
        }
        for view in views
        for feature in view.features
    ]


def _has(service: Service, view: View, feature: Feature) -> bool:
    return any(found is view and feature.name in columns for found, columns in service.views())
