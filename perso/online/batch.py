"""Every user's list at once: what the service would answer to each, without asking it each time.

A list is that of :class:`perso.online.ranking.Ranker` for a user without newer events and without
context: personal where the model can tell the user from others, then what is popular in the
segment, then in the shop; items that the user had are left out. Only how it is computed differs:
one product for a block of users instead of one for each.

Users whom rules concern, and models without factors, need whole rows of scores, of which
``_SCORE_BYTES`` exist at a time; they cost some five times as much. At 10 million users, 100,000
items and 64 factors products and selection take about an hour of one core; 100 million seen pairs
are 480 MB of memory-mapped arrays, which the workers of a node share; lists take 30 bytes a place
while they are made.
"""

# I items, B users of one call, K list length, N places of a popular list, S segments

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perso.models.bundle import Bundle
from perso.models.factors import FactorModel
from perso.models.protocol import UserBatch, WeightedItems
from perso.models.top_k import top_k, top_k_factors
from perso.online.audience import Audience
from perso.online.item_groups import ItemGroups
from perso.online.ranking import LADDER, Query, RankedItem, Ranker
from perso.online.strategies import (
    CLUSTER,
    TOP_CATEGORIES,
    Boost,
    Strategies,
    StrategySpec,
    boosted_scores,
)
from perso.schema import RECOMMENDATION_SCHEMA

_SCORE_BYTES: Final = 64 << 20
"""Of scores that exist at once where whole rows are needed."""
_MAX_REMEMBERED: Final = 256
"""Sets of rules with their items, 1 byte an item and rule each."""
_PERSONAL: Final = LADDER.index("personal")
_ENCODED: Final = pa.schema(
    [
        f.with_type(pa.dictionary(pa.int32(), f.type)) if f.type == pa.string() else f
        for f in RECOMMENDATION_SCHEMA
    ]
)


class BatchRecommender:
    """Lists of many users from one bundle."""

    def __init__(
        self, version: str, bundle: Bundle, *, strategies: StrategySpec | None = None
    ) -> None:
        """Make the lists of one version.

        Args:
            version: What the lists are marked with.
            bundle: The model and what belongs to it.
            strategies: The shop's rules; none: lists are the model's own.
        """
        self._version = version
        self._bundle = bundle
        self._ranker = Ranker(bundle, strategies=strategies)
        self._has_rules = bool(strategies and strategies.rules)
        rules = Strategies(strategies or StrategySpec(), bundle, ItemGroups(bundle.catalog))

        @lru_cache(maxsize=_MAX_REMEMBERED)
        def boosts(
            segment: str | None, cluster: str | None, top_categories: tuple[str, ...]
        ) -> list[Boost]:
            return rules.boosts(segment, {CLUSTER: cluster, TOP_CATEGORIES: top_categories})

        self._boosts = boosts

    def lists(self, audience: Audience, *, k: int) -> pa.Table:
        """The lists of some users, one user's rows behind the other's.

        Args:
            audience: Whom.
            k: Places of a list, 1 or more; fewer are filled where fewer items may be shown.

        Returns:
            RECOMMENDATION_SCHEMA, at most B · K rows; names are dictionaries of those that occur.

        Raises:
            ValueError: If ``k`` is below 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}; give 1 or more")
        lists = _Lists.empty(len(audience), k)
        boosts = self._boosts_of(audience)
        self._add_personal(lists, audience, boosts)
        self._add_popular(lists, audience, boosts)
        return lists.to_table(audience, self._bundle, self._version)

    def _boosts_of(self, audience: Audience) -> dict[int, list[Boost]]:
        """The rules of each place whom some concern."""
        if not self._has_rules:
            return {}
        clusters_B = _column(audience, CLUSTER)
        categories_B = _column(audience, TOP_CATEGORIES)
        found = (
            (place, self._boosts(audience.segment_of(place), clusters_B[place], tuple(categories)))
            for place, categories in enumerate(names or () for names in categories_B)
        )
        return {place: boosts for place, boosts in found if boosts}

    def _add_personal(
        self, lists: "_Lists", audience: Audience, boosts: Mapping[int, list[Boost]]
    ) -> None:
        """The first rung, for whom the model can tell from others."""
        model = self._bundle.model
        knows_B = np.fromiter(
            map(model.knows, audience.user_indices_B.tolist()), np.bool_, len(audience)
        )
        names: tuple[str | None, ...] = (*audience.segment_names, None)  # code -1 is the last
        says_S = np.array([model.knows_request(segment=name, context={}) for name in names])
        attributes = self._telling_attributes(audience, np.flatnonzero(~knows_B))
        is_personal_B = knows_B | says_S[audience.segment_codes_B]
        is_personal_B[list(attributes)] = True
        needs_rows_B = np.full(len(audience), not isinstance(model, FactorModel))
        needs_rows_B[[*boosts, *attributes]] = True
        self._add_by_factors(lists, audience, np.flatnonzero(is_personal_B & ~needs_rows_B))
        places = np.flatnonzero(is_personal_B & needs_rows_B)
        height = max(1, _SCORE_BYTES // (4 * model.num_items))
        for start in range(0, len(places), height):
            block = places[start : start + height]
            self._add_by_rows(lists, audience, block, boosts, attributes)

    def _telling_attributes(
        self, audience: Audience, places: NDArray[np.int64]
    ) -> dict[int, dict[str, Any]]:
        """Attributes of the places that the model does not know, where it can read them."""
        if audience.attributes is None:
            return {}
        knows_request = self._bundle.model.knows_request
        rows = audience.attributes.take(pa.array(places)).to_pylist()
        return {
            place: row
            for place, row in zip(places.tolist(), rows, strict=True)
            if knows_request(segment=None, context={}, attributes=row)
        }

    def _add_by_factors(
        self, lists: "_Lists", audience: Audience, places: NDArray[np.int64]
    ) -> None:
        model = self._bundle.model
        if not len(places) or not isinstance(model, FactorModel):
            return
        indptr, items = self._seen(audience.user_indices_B[places])
        best = top_k_factors(
            model.user_vectors(_batch(audience, places)),
            model.item_factors_ID,
            model.item_bias_I,
            lists.k,
            seen_indptr=indptr,
            seen_indices=items,
            allowed=model.has_signal_I,
        )
        lists.put(places, *best)

    def _add_by_rows(
        self,
        lists: "_Lists",
        audience: Audience,
        places: NDArray[np.int64],
        boosts: Mapping[int, list[Boost]],
        attributes: Mapping[int, dict[str, Any]],
    ) -> None:
        model = self._bundle.model
        scores_BI = model.score(_batch(audience, places))
        seen = [self._bundle.seen.of(user) for user in audience.user_indices_B[places].tolist()]
        for row, place in enumerate(places.tolist()):
            if place in attributes:
                scores_BI[row] = model.score_recent(
                    int(audience.user_indices_B[place]),
                    WeightedItems.empty(),
                    segment=audience.segment_of(place),
                    attributes=attributes[place],
                )
            if place in boosts:
                eligible_I = model.has_signal_I.copy()
                eligible_I[seen[row]] = False
                eligible = np.flatnonzero(eligible_I)
                scores = boosted_scores(scores_BI[row, eligible], boosts[place], eligible)
                scores_BI[row, eligible] = scores
        lists.put(places, *top_k(scores_BI, lists.k, seen=seen, allowed=model.has_signal_I))

    def _add_popular(
        self, lists: "_Lists", audience: Audience, boosts: Mapping[int, list[Boost]]
    ) -> None:
        """The lower rungs, for places that are still empty."""
        is_short_B = lists.lengths_B < lists.k
        is_moved_B = np.zeros(len(audience), np.bool_)
        is_moved_B[list(boosts)] = True
        for place in np.flatnonzero(is_short_B & is_moved_B).tolist():
            # Rules count in deviations of what is left for this user: asked one by one, 1 ms each.
            known = audience.attributes
            query = Query(
                k=lists.k,
                user_index=int(audience.user_indices_B[place]),
                segment=audience.segment_of(place),
                attributes=None if known is None else known.slice(place, 1).to_pylist()[0],
            )
            lists.put_ranked(place, self._ranker.recommend(query))
        rest = np.flatnonzero(is_short_B & ~is_moved_B)
        codes = audience.segment_codes_B[rest]
        for code in np.unique(codes).tolist():
            places = rest[codes == code]
            name = audience.segment_names[code] if code >= 0 else None
            self._add_from_popular(lists, audience, places, segment=name)

    def _add_from_popular(
        self, lists: "_Lists", audience: Audience, places: NDArray[np.int64], *, segment: str | None
    ) -> None:
        """One list for the segment, of which each user takes what is new to the user."""
        seen = [self._bundle.seen.of(user) for user in audience.user_indices_B[places].tolist()]
        depth = lists.k + max(map(len, seen))  # whatever a user has, enough is left
        popular = _Places.of(self._ranker.popular(k=depth, segment=segment))
        is_left_out_I = np.zeros(len(self._bundle.items), np.bool_)
        for place, seen_items in zip(places.tolist(), seen, strict=True):
            taken = lists.items_of(place)
            is_left_out_I[seen_items] = is_left_out_I[taken] = True
            lists.append(place, popular.first(lists.k - len(taken), is_left_out_I))
            is_left_out_I[seen_items] = is_left_out_I[taken] = False

    def _seen(
        self, user_indices_B: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Where each user's items begin, and the end; the items, user after user."""
        seen = self._bundle.seen
        starts_B = seen.indptr_U1[user_indices_B]
        counts_B = seen.indptr_U1[user_indices_B + 1] - starts_B
        indptr_B1 = np.concatenate([[0], np.cumsum(counts_B)])
        rows = np.arange(indptr_B1[-1]) + np.repeat(starts_B - indptr_B1[:-1], counts_B)
        return indptr_B1, seen.item_indices[rows]


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Places of one list, best first."""

    items_N: NDArray[np.int64]
    scores_N: NDArray[np.float32]
    rungs_N: NDArray[np.int8]

    @classmethod
    def of(cls, ranked: Sequence[RankedItem]) -> "_Places":
        return cls(
            items_N=np.array([item.item_index for item in ranked], np.int64),
            scores_N=np.array([item.score for item in ranked], np.float32),
            rungs_N=np.array([LADDER.index(item.source) for item in ranked], np.int8),
        )

    def first(self, count: int, is_left_out_I: NDArray[np.bool_]) -> "_Places":
        kept = np.flatnonzero(~is_left_out_I[self.items_N])[:count]
        return _Places(
            items_N=self.items_N[kept], scores_N=self.scores_N[kept], rungs_N=self.rungs_N[kept]
        )


@dataclass(frozen=True, kw_only=True)
class _Lists:
    """Lists that are being filled, in place."""

    items_BK: NDArray[np.int64]
    """Best first; -1 from where a list ends."""
    scores_BK: NDArray[np.float32]
    rungs_BK: NDArray[np.int8]
    """Places in LADDER."""

    @classmethod
    def empty(cls, num_users: int, k: int) -> "_Lists":
        return cls(
            items_BK=np.full((num_users, k), -1, np.int64),
            scores_BK=np.zeros((num_users, k), np.float32),
            rungs_BK=np.full((num_users, k), _PERSONAL, np.int8),
        )

    @property
    def k(self) -> int:
        return int(self.items_BK.shape[1])

    @property
    def lengths_B(self) -> NDArray[np.int64]:
        lengths_B: NDArray[np.int64] = (self.items_BK >= 0).sum(1)
        return lengths_B

    def items_of(self, place: int) -> NDArray[np.int64]:
        items: NDArray[np.int64] = self.items_BK[place, self.items_BK[place] >= 0]
        return items

    def put(
        self,
        places: NDArray[np.int64],
        items_BK: NDArray[np.int64],
        scores_BK: NDArray[np.float32],
    ) -> None:
        """Personal lists."""
        self.items_BK[places] = items_BK
        self.scores_BK[places] = scores_BK

    def put_ranked(self, place: int, ranked: Sequence[RankedItem]) -> None:
        """A whole list."""
        self.items_BK[place] = -1
        self.append(place, _Places.of(ranked))

    def append(self, place: int, more: _Places) -> None:
        start = int((self.items_BK[place] >= 0).sum())
        filled = slice(start, start + len(more.items_N))
        self.items_BK[place, filled] = more.items_N
        self.scores_BK[place, filled] = more.scores_N
        self.rungs_BK[place, filled] = more.rungs_N

    def to_table(self, audience: Audience, bundle: Bundle, version: str) -> pa.Table:
        is_filled_BK = self.items_BK >= 0
        users_P, places_P = np.nonzero(is_filled_BK)
        items_P = self.items_BK[is_filled_BK]
        occurs_I = np.zeros(len(bundle.items), np.bool_)
        occurs_I[items_P] = True
        item_codes_I = np.cumsum(occurs_I) - 1
        segments_P = audience.segment_codes_B[users_P]
        columns = {
            "user_id": _named(users_P, bundle.users.ids.take(pa.array(audience.user_indices_B))),
            "rank": pa.array(places_P + 1, pa.int32()),
            "item_id": _named(
                item_codes_I[items_P], bundle.items.ids.take(pa.array(np.flatnonzero(occurs_I)))
            ),
            "score": pa.array(self.scores_BK[is_filled_BK]),
            "source": _named(self.rungs_BK[is_filled_BK], pa.array(LADDER, pa.string())),
            "segment": _named(segments_P, pa.array(audience.segment_names, pa.string())),
            "model_version": _named(np.zeros(len(users_P)), pa.array([version])),
        }
        return pa.table(columns, _ENCODED)


def _named(codes: NDArray[Any], names: pa.Array) -> pa.DictionaryArray:
    """Names by code; null where the code is negative."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, names.cast(pa.string()))


def _batch(audience: Audience, places: NDArray[np.int64]) -> UserBatch:
    return UserBatch(
        user_indices=audience.user_indices_B[places],
        segment_names=tuple(audience.segment_of(place) for place in places.tolist()),
    )


def _column(audience: Audience, name: str) -> list[Any]:
    """One attribute of each user, None where nothing is known."""
    if audience.attributes is None or name not in audience.attributes.column_names:
        return [None] * len(audience)
    values: list[Any] = audience.attributes[name].to_pylist()
    return values
