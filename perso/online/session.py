"""The newest events of one shopper as weighted items.

Decides what an event still says about taste some minutes or days later, and which items a shopper
already knows. Which events these are is the log's matter, what follows from them the fold-in's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.data.interactions import EVENT_WEIGHTS, VALUE_WEIGHTS
from perso.data.vocabulary import Vocabulary
from perso.models.protocol import WeightedItems
from perso.stream.event import Event

_CANCELS: Final = MappingProxyType({"remove_from_cart": "add_to_cart", "refund": "purchase"})
"""An event that takes back every earlier event of another type on the same item."""


@dataclass(frozen=True, kw_only=True)
class SessionSpec:
    """How recent events are weighed."""

    num_events: int = 50
    """Newest events of a user or session that count."""
    half_life_hours: float = 6.0
    """Hours in which the extra weight of the present halves, down to the weight in training."""
    event_weights: Mapping[str, float] = field(default_factory=lambda: dict(EVENT_WEIGHTS))
    """Weight of one event by type; a type that is in neither table says nothing about taste."""
    value_weights: Mapping[str, float] = field(default_factory=lambda: dict(VALUE_WEIGHTS))
    """Weight per unit of ``value`` by type: a star, a second; the newest such event counts."""
    max_value_weight: float = 5.0
    """Ceiling of a weight made from a value, so that one forgotten tab is no passion."""

    def __post_init__(self) -> None:
        for name in ("num_events", "half_life_hours", "max_value_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a number above 0")
        for event_type, weight in {**self.event_weights, **self.value_weights}.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(
                    f"weight of {event_type!r} is {weight!r}; give 0 or more "
                    f"(remove_from_cart and refund cancel by themselves)"
                )
        both = self.event_weights.keys() & self.value_weights.keys()
        if both:
            raise ValueError(f"{sorted(both)} have both a fixed and a value weight; keep one")


@dataclass(frozen=True, kw_only=True)
class Session:
    """What the newest events say, by item."""

    items: WeightedItems
    """Items with a positive weight, ascending; weights on the scale of training times the boost,
    the newest stars given to each."""
    known_items: NDArray[np.int64]
    """Distinct items the shopper acted on, ascending; a cancelled one included."""
    num_events: int
    """Events that may be used, on unknown items too."""

    @classmethod
    def empty(cls) -> "Session":
        """The session of somebody who did nothing yet."""
        none = np.empty(0, np.int64)
        return cls(items=WeightedItems.empty(), known_items=none, num_events=0)


def summarize_events(
    events: Iterable[Event],
    items: Vocabulary,
    *,
    as_of: datetime,
    trained_until: datetime,
    boost: float,
    spec: SessionSpec,
) -> Session:
    """Weighted items of one shopper's recent events.

    An event of this moment weighs ``boost`` times its training weight, and less with age, down to
    the training weight. Weights of one item add up, except that the newest rating or dwell
    replaces older ones. Taking an item out of the cart cancels putting it in, a refund cancels
    the purchase. Items outside the vocabulary (newer than the model) are left out.

    Args:
        events: Events of one user or session, in any order. Impressions say nothing, and events
            whose shopper refused personalization are not used at all, as in training.
        items: The served model's items.
        as_of: The instant (UTC) of asking; later events count as if they happened now.
        trained_until: Events before it are in the trained factor already: they only make an item
            known.
        boost: Weight of an event of this moment relative to training, 1 or more.
        spec: Weights and half-life.
    """
    usable = [event for event in events if event.consent is not False]
    weights_by_item: dict[int, dict[str, float]] = {}
    rating_by_item: dict[int, float] = {}
    for event in sorted(usable, key=lambda e: e.timestamp):
        index = -1 if event.item_id is None else items.index_of(event.item_id)
        if index < 0 or event.event_type == "impression":
            continue
        weights = weights_by_item.setdefault(index, {})
        if event.event_type in _CANCELS:
            weights.pop(_CANCELS[event.event_type], None)
        elif event.timestamp >= trained_until:
            age_hours = max(0.0, (as_of - event.timestamp).total_seconds() / 3600)
            freshness = 1.0 + (boost - 1.0) * 0.5 ** (age_hours / spec.half_life_hours)
            earlier = weights.get(event.event_type, 0.0)
            weights[event.event_type] = _weight(event, earlier, freshness, spec)
            if event.event_type == "rate_item" and event.value is not None:
                rating_by_item[index] = event.value
    totals = {index: sum(weights.values()) for index, weights in sorted(weights_by_item.items())}
    positive = {index: total for index, total in totals.items() if total > 0}
    return Session(
        items=WeightedItems(
            item_indices=np.array(list(positive), np.int64),
            weights=np.array(list(positive.values()), np.float64),
            ratings=np.array([rating_by_item.get(i, np.nan) for i in positive], np.float64),
        ),
        known_items=np.array(list(totals), np.int64),
        num_events=len(usable),
    )


def _weight(event: Event, earlier: float, freshness: float, spec: SessionSpec) -> float:
    """The weight of all events of one type on one item, this newest one included."""
    per_unit = spec.value_weights.get(event.event_type)
    if per_unit is not None:
        return freshness * min(max(per_unit * (event.value or 0.0), 0.0), spec.max_value_weight)
    return earlier + freshness * spec.event_weights.get(event.event_type, 0.0)
