"""From a shopper's vector, session, segment and context to one ranked list.

Decides which items may be shown and from where a list is filled: personal scores first, then the
popularity of the segment, of the context, of the whole shop. Personal scores are for whom the
model can tell from others: by a history, a session, features, or what the request says where
training has learned from it. A lower rung only fills places that the rungs above left empty, so
scores are comparable within one source, not across two. A shop's rules move scores within a rung,
so they never bring a less personal item before a more personal one.

Legend: I items, D factors, K list length, N companions of an item.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from perso.models.bundle import Bundle
from perso.models.top_k import top_k
from perso.online.item_groups import ItemGroups
from perso.online.session import Session
from perso.online.strategies import Boost, Strategies, StrategySpec, boosted_scores
from perso.schema import CONTEXT_COLUMNS

Source = Literal[
    "personal",
    "similar",
    "bought_together",
    "segment_popular",
    "context_popular",
    "category_popular",
    "global_popular",
]
LADDER: Final[tuple[Source, ...]] = (
    "personal",
    "segment_popular",
    "context_popular",
    "global_popular",
)
"""Sources of a recommendation, best first; an answer's rung is the best that gave an item."""


@dataclass(frozen=True, kw_only=True)
class ItemFilter:
    """Which items may be shown; every condition must hold."""

    categories: tuple[str, ...] = ()
    """An item needs one of these; empty: any."""
    price_min: float | None = None
    """Lowest price; an item without a known price fails any price condition."""
    price_max: float | None = None
    """Highest price."""
    in_stock: bool = False
    """Leave out items known to be out of stock."""
    exclude_items: tuple[int, ...] = ()
    """Item indices that are left out."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """One question for a list."""

    k: int
    """List length, 1 or more; fewer come back where fewer are allowed."""
    user_index: int = -1
    """Row of the user vocabulary, -1 for a stranger."""
    session: Session = field(default_factory=Session.empty)
    """What the newest events say."""
    segment: str | None = None
    """The shopper's segment, where known."""
    context: Mapping[str, str] = field(default_factory=dict)
    """Values of device, region and daypart, where known."""
    attributes: Mapping[str, Any] | None = None
    """What the feature store knows of the shopper, by feature name: the model reads it for
    users it knows nothing of, the rules for everybody."""
    exclude_seen: bool = True
    """Leave out every item the shopper already acted on, in training or just now."""
    filters: ItemFilter = field(default_factory=ItemFilter)
    """Which items may be shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedItem:
    """One place of a list."""

    item_index: int
    """Row of the item vocabulary."""
    score: float
    """Comparable with the other items of the same source; what rules added is in it."""
    source: Source
    """The rung or rule that put the item here."""
    boosted_by: tuple[str, ...] = ()
    """Names of the strategy rules that moved it, up or down."""


class Ranker:
    """Lists from one model bundle. Holds no state between calls; safe to share."""

    def __init__(self, bundle: Bundle, *, strategies: StrategySpec | None = None) -> None:
        """Make the lists of one bundle.

        Args:
            bundle: The model and what belongs to it.
            strategies: The shop's rules; none: lists are the model's own.
        """
        self.bundle = bundle
        self._has_signal_I = bundle.model.has_signal_I
        self._groups = ItemGroups(bundle.catalog)
        self._strategies = Strategies(strategies or StrategySpec(), bundle, self._groups)

    @property
    def idle_rules(self) -> list[str]:
        """Names of the rules that no item of this bundle meets."""
        return self._strategies.idle

    def recommend(self, query: Query) -> list[RankedItem]:
        """At most ``query.k`` distinct allowed items, the ladder's best rung first."""
        allowed_I = self._allowed(query.filters)
        if query.exclude_seen:
            allowed_I[query.session.known_items] = False
            if query.user_index >= 0:
                allowed_I[self.bundle.seen.of(query.user_index)] = False
        boosts = self._strategies.boosts(query.segment, query.attributes)
        return _fill(self._rungs(query), allowed_I, query.k, boosts)

    def popular(self, *, k: int, segment: str | None) -> list[RankedItem]:
        """What fills the places of a list that the model leaves empty, for a user without context.

        No rule moves it and nothing is left out.
        """
        allowed_I = self._allowed(ItemFilter())
        return _fill(self._popular_rungs(Query(k=k, segment=segment)), allowed_I, k)

    def strategies_for(self, query: Query) -> list[str]:
        """Names of the rules that concern the shopper and have items in this shop."""
        boosts = self._strategies.boosts(query.segment, query.attributes)
        return [boost.rule for boost in boosts]

    def similar(
        self, item_index: int, *, k: int, filters: ItemFilter | None = None
    ) -> list[RankedItem]:
        """Allowed items closest to one item as the model sees it, then popular ones.

        An item that the model knows nothing of (nobody touched it before training) has no
        neighbours; then, and where fewer than ``k`` remain, the popular items of its categories
        follow.
        """
        return self._beside(item_index, self._neighbours(item_index), k, filters)

    def bought_together(
        self, item_index: int, *, k: int, filters: ItemFilter | None = None
    ) -> list[RankedItem]:
        """Allowed items that lay in one basket with an item, then what :meth:`similar` gives."""
        return self._beside(item_index, self._companions(item_index), k, filters)

    def _beside(
        self, item_index: int, rungs: Iterator["_Rung"], k: int, filters: ItemFilter | None
    ) -> list[RankedItem]:
        allowed_I = self._allowed(filters or ItemFilter())
        allowed_I[item_index] = False
        return _fill(rungs, allowed_I, k)

    def _rungs(self, query: Query) -> Iterator["_Rung"]:
        model = self.bundle.model
        if (
            len(query.session.items)
            or model.knows(query.user_index)
            or model.knows_request(
                segment=query.segment, context=query.context, attributes=query.attributes
            )
        ):
            scores_I = model.score_recent(
                query.user_index,
                query.session.items,
                segment=query.segment,
                context=query.context,
                attributes=query.attributes,
            )
            yield "personal", scores_I, self._has_signal_I
        yield from self._popular_rungs(query)

    def _popular_rungs(self, query: Query) -> Iterator["_Rung"]:
        popularity = self.bundle.popularity
        if query.segment is not None:
            segment_I = popularity.slice_scores("segment", query.segment)
            if segment_I is not None:
                yield "segment_popular", segment_I, segment_I > 0
        context_I = self._context_scores(query.context)
        if context_I is not None:
            yield "context_popular", context_I, context_I > 0
        yield "global_popular", popularity.global_scores_I, None

    def _context_scores(self, context: Mapping[str, str]) -> NDArray[np.float32] | None:
        """Mean share of demand over the known context values, None where all are unknown."""
        shares = []
        for kind in CONTEXT_COLUMNS:
            value = context.get(kind)
            scores_I = None if value is None else self.bundle.popularity.slice_scores(kind, value)
            if scores_I is not None and (total := float(scores_I.sum())) > 0:
                shares.append(scores_I / total)
        return np.mean(shares, axis=0, dtype=np.float32) if shares else None

    def _companions(self, item_index: int) -> Iterator["_Rung"]:
        items_N, scores_N = self.bundle.bought_together.of(item_index)
        if len(items_N):
            together_I = np.zeros(len(self.bundle.items), np.float32)
            together_I[items_N] = scores_N
            yield "bought_together", together_I, together_I > 0
        yield from self._neighbours(item_index)

    def _neighbours(self, item_index: int) -> Iterator["_Rung"]:
        if self._has_signal_I[item_index]:
            alike_I = self.bundle.model.similarity(item_index)
            yield "similar", alike_I, alike_I != 0  # 0: the model cannot tell
        global_I = self.bundle.popularity.global_scores_I
        categories = self.bundle.catalog["categories"][item_index].as_py() or ()
        if categories:
            yield "category_popular", global_I, self._groups.in_categories(tuple(categories))
        yield "global_popular", global_I, None

    def _allowed(self, filters: ItemFilter) -> NDArray[np.bool_]:
        """A fresh mask, shape (I,)."""
        allowed_I = np.ones(len(self.bundle.items), np.bool_)
        if filters.categories:
            allowed_I &= self._groups.in_categories(filters.categories)
        if filters.price_min is not None:
            allowed_I &= self._groups.prices_I >= filters.price_min  # nan fails
        if filters.price_max is not None:
            allowed_I &= self._groups.prices_I <= filters.price_max
        if filters.in_stock:
            allowed_I &= self._groups.in_stock_I
        allowed_I[list(filters.exclude_items)] = False
        return allowed_I


_Rung = tuple[Source, NDArray[np.float32], NDArray[np.bool_] | None]


def _fill(
    rungs: Iterator[_Rung], allowed_I: NDArray[np.bool_], k: int, boosts: Sequence[Boost] = ()
) -> list[RankedItem]:
    """Take from each rung what is allowed and not taken; changes ``allowed_I``."""
    ranked: list[RankedItem] = []
    for source, scores_I, candidates_I in rungs:
        mask_I = allowed_I if candidates_I is None else allowed_I & candidates_I
        # Only what may be shown is partitioned: numpy is slow where masked scores all tie.
        eligible = np.flatnonzero(mask_I)
        if len(eligible):
            scores = boosted_scores(scores_I[eligible], boosts, eligible)
            places_1K, scores_1K = top_k(scores[np.newaxis], k - len(ranked))
            num_found = int((places_1K >= 0).sum())
            found = eligible[places_1K[0, :num_found]]
            ranked += [
                RankedItem(
                    item_index=index,
                    score=score,
                    source=source,
                    boosted_by=tuple(boost.rule for boost in boosts if boost.items_I[index]),
                )
                for index, score in zip(
                    found.tolist(), scores_1K[0, :num_found].tolist(), strict=True
                )
            ]
            allowed_I[found] = False
        if len(ranked) == k:
            break
    return ranked
