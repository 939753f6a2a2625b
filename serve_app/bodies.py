"""What clients send and get: every JSON body of the API, with its examples.

Decides names, bounds and required fields. Unknown fields are refused, so a misspelt filter is an
error instead of a list that ignores it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from perso.data.columns import EARLIEST_YEAR
from perso.data.events import TYPES_WITH_VALUE
from perso.online.live import Conditions, Question
from perso.online.ranking import Source
from perso.stream.event import Event
from serve_app.feature_reader import Outcome

MAX_K: Final = 200
MAX_EVENTS: Final = 1000
CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far ahead of ours a sender's clock may be."""
_EARLIEST: Final = datetime(EARLIEST_YEAR, 1, 1, tzinfo=UTC)

Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Daypart = Literal["night", "morning", "afternoon", "evening"]


def _require_somebody(user_id: str | None, session_id: str | None) -> None:
    if user_id is None and session_id is None:
        raise PydanticCustomError(
            "missing_user", "give user_id, session_id or both", {"field": "user_id"}
        )


def _require_order(low: float | None, high: float | None, *, field: str) -> None:
    if low is not None and high is not None and low > high:
        raise PydanticCustomError(
            "price_range",
            "lowest price {low} is above highest price {high}",
            {"low": low, "high": high, "field": field},
        )


class Body(BaseModel):
    """A JSON object without unknown fields."""

    model_config = ConfigDict(extra="forbid")


class Context(Body):
    """Where and when the shopper asks."""

    device: Label | None = Field(default=None, examples=["mobile"])
    region: Label | None = Field(default=None, examples=["DE"])
    daypart: Daypart | None = Field(
        default=None, description="Default: the time of asking, in UTC."
    )


class PriceRange(Body):
    """Bounds on the catalogue price, both included."""

    min: Price | None = None
    max: Price | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _require_order(self.min, self.max, field="min")
        return self


class Filter(Body):
    """Conditions that every item of the list meets."""

    categories: list[Label] = Field(default=[], max_length=100, description="Any of these.")
    price: PriceRange = PriceRange()
    in_stock: bool = Field(default=False, description="Leave out items known to be out of stock.")


class RecommendationsBody(Body):
    """A question for a list."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "u42", "k": 10},
                {
                    "user_id": "u42",
                    "session_id": "s-7f3a",
                    "k": 5,
                    "context": {"device": "mobile", "region": "DE"},
                    "filter": {
                        "categories": ["mugs"],
                        "price": {"min": 5, "max": 20},
                        "in_stock": True,
                    },
                    "exclude_item_ids": ["item-1"],
                },
            ]
        }
    )

    user_id: Id | None = None
    session_id: Id | None = Field(
        default=None,
        description="Adds what was done in the visit before logging in; alone, an anonymous "
        "shopper: what was done in it with a user_id stays out.",
    )
    k: Annotated[int, Field(ge=1, le=MAX_K)] = 10
    context: Context = Context()
    exclude_seen: bool = Field(
        default=True,
        description="Leave out items the shopper already acted on, a minute ago included.",
    )
    filter: Filter = Filter()
    exclude_item_ids: list[Id] = Field(default=[], max_length=1000)
    segment: Label | None = Field(
        default=None,
        description="Stands for the segment that the feature store has; one of those the model, "
        "the rules or the shop know.",
        examples=["champions"],
    )

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        _require_somebody(self.user_id, self.session_id)
        return self

    def to_question(self, segment: str | None, attributes: Mapping[str, Any] | None) -> Question:
        """The same question in the library's words."""
        return Question(
            user_id=self.user_id,
            session_id=self.session_id,
            k=self.k,
            context=self.context.model_dump(exclude_none=True),
            segment=segment,
            attributes=attributes,
            exclude_seen=self.exclude_seen,
            conditions=Conditions(
                categories=tuple(self.filter.categories),
                price_min=self.filter.price.min,
                price_max=self.filter.price.max,
                in_stock=self.filter.in_stock,
                exclude_item_ids=tuple(self.exclude_item_ids),
            ),
        )


class SimilarQuery(Body):
    """Query parameters of a list that is the same for everybody."""

    k: Annotated[int, Field(ge=1, le=MAX_K, description="List length.")] = 10
    category: list[Label] = Field(default=[], max_length=100, description="Any of these.")
    price_min: Price | None = None
    price_max: Price | None = None
    in_stock: bool = Field(default=False, description="Leave out items known to be out of stock.")
    exclude_item_id: list[Id] = Field(default=[], max_length=1000)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _require_order(self.price_min, self.price_max, field="price_min")
        return self

    def to_conditions(self) -> Conditions:
        """The same conditions in the library's words."""
        return Conditions(
            categories=tuple(self.category),
            price_min=self.price_min,
            price_max=self.price_max,
            in_stock=self.in_stock,
            exclude_item_ids=tuple(self.exclude_item_id),
        )


class RecommendationsQuery(SimilarQuery):
    """Query parameters of a shopper's list."""

    session_id: Id | None = None
    device: Label | None = None
    region: Label | None = None
    daypart: Daypart | None = Field(
        default=None, description="Default: the time of asking, in UTC."
    )
    exclude_seen: bool = Field(
        default=True,
        description="Leave out items the shopper already acted on, a minute ago included.",
    )
    segment: Label | None = Field(
        default=None, description="Stands for the segment that the feature store has."
    )

    def to_question(
        self, user_id: str, segment: str | None, attributes: Mapping[str, Any] | None
    ) -> Question:
        """The same question in the library's words."""
        context = Context(device=self.device, region=self.region, daypart=self.daypart)
        return Question(
            user_id=user_id,
            session_id=self.session_id,
            k=self.k,
            context=context.model_dump(exclude_none=True),
            segment=segment,
            attributes=attributes,
            exclude_seen=self.exclude_seen,
            conditions=self.to_conditions(),
        )


class RecommendedItem(Body):
    """One place of a list."""

    item_id: str
    score: float = Field(description="Comparable with the items of the same source.")
    source: Source = Field(description="What put the item here.")
    title: str | None
    price: float | None
    categories: list[str]
    boosted_by: list[str] = Field(
        default=[], description="Strategy rules that moved the item; their boost is in the score."
    )


class Recommendations(Body):
    """A list and where it came from."""

    request_id: str = Field(description="Send it back with every event that reacts to this list.")
    model_version: str
    rung: Source | None = Field(
        description="The best rung of the fallback ladder that gave an item; null: empty list."
    )
    segment: str | None = Field(description="The shopper's segment, where known.")
    segment_source: Literal["request", "feature_store"] | None = Field(
        description="Where the segment is from; null: none is known."
    )
    features: Outcome | Literal["not_asked"] = Field(
        description="How the feature store was read. fresh: now; cached: a moment ago; stale: "
        "either, but the segment is older than the service's limit, and used all the same; kept: "
        "an older row, because the store does not answer; unknown: it has no segment for this "
        "user; slow, down: it did not answer; not_asked: an anonymous shopper."
    )
    feature_age_s: float | None = Field(
        description="Age of the stored segment, in seconds; null: none is stored."
    )
    strategies: list[str] = Field(
        default=[], description="Rules of the shop that concern this shopper."
    )
    num_recent_events: int = Field(description="Newest events that the list already knows.")
    degraded: list[Literal["event_log", "feature_store"]] = Field(
        description="Parts that did not answer; the list does without them."
    )
    items: list[RecommendedItem]


class SimilarItems(Body):
    """The items that go with one item: close to it, or bought together with it."""

    request_id: str = Field(description="Send it back with every event that reacts to this list.")
    model_version: str
    item_id: str
    items: list[RecommendedItem]


class EventContext(Body):
    """Where the event happened."""

    device: Label | None = None
    region: Label | None = None
    campaign: Label | None = None


class EventBody(Body):
    """What a shopper did, or what was shown to them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "event_id": "6c1f0b9e",
                    "event_type": "view_item",
                    "session_id": "s-7f3a",
                    "item_id": "item-1",
                }
            ]
        }
    )

    event_id: Id = Field(
        description="Chosen by the sender; sent again after a lost answer, it counts once."
    )
    event_type: Label = Field(examples=["view_item", "add_to_cart", "purchase", "impression"])
    user_id: Id | None = None
    session_id: Id | None = None
    item_id: Id = Field(description="May be newer than the model.")
    timestamp: AwareDatetime | None = Field(
        default=None, description="With a time zone; default: the time of receipt."
    )
    value: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="Revenue of a purchase, stars of a rating, seconds of a dwell.",
    )
    quantity: int | None = Field(default=None, ge=1, lt=2**31)
    currency: str | None = Field(default=None, pattern="^[A-Z]{3}$", examples=["EUR"])
    request_id: Id | None = Field(default=None, description="The answer that this event reacts to.")
    context: EventContext = EventContext()
    consent: bool | None = None
    price: Price | None = None
    item_name: str | None = Field(default=None, max_length=1024)
    item_category: Label | None = None

    @field_validator("timestamp")
    @classmethod
    def _plausible(cls, timestamp: datetime | None) -> datetime | None:
        if timestamp is not None and timestamp < _EARLIEST:
            raise PydanticCustomError(
                "ancient_timestamp", "is before {year}", {"year": EARLIEST_YEAR}
            )
        if timestamp is not None and timestamp > datetime.now(UTC) + CLOCK_TOLERANCE:
            raise PydanticCustomError(
                "future_timestamp", "is more than 5 minutes ahead of this server's clock"
            )
        return timestamp

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        _require_somebody(self.user_id, self.session_id)
        return self

    @model_validator(mode="after")
    def _with_value(self) -> Self:
        if self.event_type in TYPES_WITH_VALUE and self.value is None:
            raise PydanticCustomError(
                "missing_value",
                "a {event_type} event needs a value",
                {"event_type": self.event_type, "field": "value"},
            )
        return self

    def to_event(self, *, received_at: datetime) -> Event:
        """The same event in the library's words."""
        fields = self.model_dump(exclude={"context", "timestamp"}, exclude_none=True)
        context = self.context.model_dump(exclude_none=True)
        timestamp = (self.timestamp or received_at).astimezone(UTC)
        return Event(timestamp=timestamp, **fields, **context)


def _one_or_batch(body: Any) -> str:
    return "batch" if isinstance(body, list) else "event"


EventsBody = Annotated[
    Annotated[EventBody, Tag("event")]
    | Annotated[list[EventBody], Field(min_length=1, max_length=MAX_EVENTS), Tag("batch")],
    Discriminator(_one_or_batch),
]
"""One event, or a JSON array of up to 1000."""


class EventsReceipt(Body):
    """What became of the events; they are durable."""

    accepted: int = Field(description="New events.")
    duplicates: int = Field(description="Events whose event_id was already known; ignored.")
    unknown_items: int = Field(
        description="Of all events sent, those on items that the model does not know yet."
    )
    request_ids: list[str] = Field(description="The answers that these events react to.")


class Segments(Body):
    """What the feature store knows of a customer."""

    user_id: str
    segment: str
    as_of: AwareDatetime = Field(description="The instant the segment was computed for.")
    age_s: float = Field(description="Seconds since `as_of`.")
    features: Outcome = Field(
        description="How the feature store was read: fresh, cached, stale (older than the "
        "service's limit) or kept (an older row, because the store does not answer)."
    )
    recency_days: float | None = Field(description="Since the last purchase; null: never bought.")
    recency_score: int = Field(description="100 (just now) to 1; 0: never bought.")
    frequency: int = Field(description="Orders in the last six months.")
    frequency_quartile: int = Field(description="1 to 4 (most orders); 0: never bought.")
    monetary: float = Field(description="Spend up to `as_of`, less refunds.")
    monetary_tier: int = Field(description="1 to 4 (spends most); 0: never bought.")
    rfm_score: float = Field(description="0 to 100: the three on one scale.")
    composite_score: float = Field(description="0 to 1: the weighted dimensions of the shop.")
    score_dimensions: list[str] = Field(description="What the composite score is made of.")
    score_contributions: list[float] = Field(
        description="What each dimension adds; they add up to the composite score."
    )
    cluster: str | None = Field(description="Stable id of the cluster; null: none, or too small.")
    cluster_label: str | None = Field(description="The cluster in words.")
    cluster_membership: float | None = Field(description="Certainty of the cluster, 0 to 1.")
    engagement: float | None = Field(description="0 to 1: depth of visits and dwell.")
    engagement_level: str | None = Field(description="low, medium or high.")
    top_categories: list[str] | None = Field(description="What the customer likes, best first.")
    top_brands: list[str] | None = Field(description="Brands, best first.")


class Model(Body):
    """The model version that answers now."""

    version: str
    created_at: str | None
    data_key: str | None = Field(description="The prepared dataset it was trained on.")
    num_users: int
    num_items: int
    metrics: dict[str, Any] = Field(description="Measured on the held-out period.")
    spec: dict[str, Any] = Field(description="How it was trained.")


class Status(Body):
    """Whether this replica is alive."""

    status: Literal["ok"] = "ok"
    model_version: str | None = None
