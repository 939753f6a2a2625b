"""From a customer's segment to what the shop wants to show them: rules that move scores.

Decides what a rule may say (for whom, which items, how strongly) and what its strength means. A
boost is added and not multiplied, because scores of a factor model may be negative; and it counts
in standard deviations of the shopper's own scores, because the scales of two models, and of two
shoppers of one, have nothing in common. So a boost of 0.5 lifts an item past about a fifth of its
peers, whatever the model; it moves the list and does not replace it.

The items of a rule are found once per bundle. A list of a shopper whom rules concern then costs a
deviation and, for each of them, an addition over the items: at 20,000 items about 0.1 ms.

Legend: I items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from perso.data.vocabulary import Vocabulary
from perso.models.bundle import Bundle
from perso.online.item_groups import ItemGroups

MAX_BOOST: Final = 3.0
"""Largest boost, in standard deviations, of one rule and of all rules on one item together."""

CLUSTER: Final = "cluster"
TOP_CATEGORIES: Final = "top_categories"
"""The features of a customer that rules ask for, beside the segment."""

_ITEM_CONDITIONS: Final = ("price", "categories", "brands", "tags", "item_ids", TOP_CATEGORIES)


@dataclass(frozen=True, kw_only=True)
class StrategyRule:
    """One rule. All conditions that are given must hold; of a list, one entry is enough."""

    name: str
    """What an answer calls it, such as ``champions_premium``."""
    segments: tuple[str, ...] = ()
    """For customers of one of these segments; empty: any, then ``clusters`` says who."""
    clusters: tuple[str, ...] = ()
    """For customers of one of these clusters, by id; empty: any."""
    price: Literal["higher", "lower"] | None = None
    """Items at or above (``higher``), or at or below (``lower``) ``price_quantile``."""
    price_quantile: float = 0.5
    """Between 0 and 1, of the catalogue's known prices; an item without a price never counts."""
    categories: tuple[str, ...] = ()
    """Items of one of these categories."""
    brands: tuple[str, ...] = ()
    """Items of one of these brands."""
    tags: tuple[str, ...] = ()
    """Items with one of these tags."""
    item_ids: tuple[str, ...] = ()
    """These items; those that the model does not know are passed over."""
    top_categories: bool = False
    """Items of the customer's own top categories; none for whom the store knows none."""
    boost: float
    """Standard deviations to add, not 0; negative lowers."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a rule has no name; give one, answers show it")
        if not self.segments and not self.clusters:
            raise ValueError(f"rule {self.name!r} is for nobody; name segments, clusters or both")
        if not any(getattr(self, condition) for condition in _ITEM_CONDITIONS):
            raise ValueError(
                f"rule {self.name!r} names no items; give one of {', '.join(_ITEM_CONDITIONS)}"
            )
        if not 0 < self.price_quantile < 1:
            raise ValueError(
                f"price_quantile of rule {self.name!r} is {self.price_quantile!r}; "
                "give a number between 0 and 1"
            )
        if not 0 < abs(self.boost) <= MAX_BOOST:
            raise ValueError(
                f"boost of rule {self.name!r} is {self.boost!r}; give standard deviations from "
                f"{-MAX_BOOST:g} to {MAX_BOOST:g}, not 0"
            )

    def concerns(self, segment: str | None, features: Mapping[str, Any]) -> bool:
        """Whether a customer is one of those the rule is for."""
        return (not self.segments or segment in self.segments) and (
            not self.clusters or features.get(CLUSTER) in self.clusters
        )


@dataclass(frozen=True, kw_only=True)
class StrategySpec:
    """What a shop promotes to whom; the ``strategies`` file of the service."""

    rules: tuple[StrategyRule, ...] = ()
    """Boosts of rules that meet on one item add up, to ``MAX_BOOST`` at most."""

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"two rules are called {twice[0]!r}; answers could not tell them apart"
            )

    @property
    def segments(self) -> frozenset[str]:
        """Every segment that a rule names."""
        return frozenset(name for rule in self.rules for name in rule.segments)


@dataclass(frozen=True, kw_only=True)
class Boost:
    """What one rule does to one shopper's list."""

    rule: str
    """Name of the rule."""
    boost: float
    """Standard deviations."""
    items_I: NDArray[np.bool_]
    """The items it moves, shape (I,); not to be written to."""


class Strategies:
    """The rules of one spec over the items of one bundle; safe to share."""

    def __init__(self, spec: StrategySpec, bundle: Bundle, groups: ItemGroups) -> None:
        """Find the items of every rule.

        Args:
            spec: The rules.
            bundle: Whose items.
            groups: Of the bundle's catalogue.
        """
        self._groups = groups
        self._rules = [(rule, _items_of(rule, bundle.items, groups)) for rule in spec.rules]

    @property
    def idle(self) -> list[str]:
        """Names of the rules that no item of the bundle meets."""
        return [rule.name for rule, items_I in self._rules if not items_I.any()]

    def boosts(self, segment: str | None, features: Mapping[str, Any] | None) -> list[Boost]:
        """The rules that concern a customer and have items, in the order of the spec.

        Args:
            segment: The customer's segment, where known.
            features: What the feature store knows of the customer: cluster, top categories.
        """
        known = features or {}
        found = []
        for rule, items_I in self._rules:
            if not rule.concerns(segment, known):
                continue
            moved_I = items_I
            if rule.top_categories:
                moved_I = items_I & self._groups.in_categories(known.get(TOP_CATEGORIES) or ())
            if moved_I.any():
                found.append(Boost(rule=rule.name, boost=rule.boost, items_I=moved_I))
        return found


def boosted_scores(
    scores: NDArray[np.float32], boosts: Sequence[Boost], eligible: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Scores of the eligible items with what the rules add; not changed where none does.

    Args:
        scores: One shopper's scores of the eligible items.
        boosts: The rules for this shopper.
        eligible: Indices of the items, as long as ``scores``.
    """
    if not boosts:
        return scores
    total = np.zeros(len(eligible), np.float32)
    for boost in boosts:
        total += boost.items_I[eligible] * np.float32(boost.boost)  # a third of masked adding
    np.clip(total, -MAX_BOOST, MAX_BOOST, out=total)
    spread = np.float32(np.std(scores, dtype=np.float64))
    return scores + total * spread


def _items_of(rule: StrategyRule, items: Vocabulary, groups: ItemGroups) -> NDArray[np.bool_]:
    """Items that meet what the rule says of every customer alike."""
    items_I = np.ones(len(items), np.bool_)
    if rule.price is not None:
        items_I &= _priced(rule, groups.prices_I)
    if rule.categories:
        items_I &= groups.in_categories(rule.categories)
    if rule.brands:
        items_I &= groups.of_brands(rule.brands)
    if rule.tags:
        items_I &= groups.with_tags(rule.tags)
    if rule.item_ids:
        named_I = np.zeros(len(items), np.bool_)
        indices = items.indices_of(rule.item_ids)
        named_I[indices[indices >= 0]] = True
        items_I &= named_I
    return items_I


def _priced(rule: StrategyRule, prices_I: NDArray[np.float64]) -> NDArray[np.bool_]:
    known = prices_I[~np.isnan(prices_I)]
    if not len(known):
        return np.zeros(len(prices_I), np.bool_)
    bound = np.quantile(known, rule.price_quantile)
    inside_I: NDArray[np.bool_] = prices_I >= bound if rule.price == "higher" else prices_I <= bound
    return inside_I
