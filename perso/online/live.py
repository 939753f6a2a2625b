"""Answers that know both the trained model and the events of a minute ago.

Puts the event log, the session, the fold-in and the ladder together for one question. Knows no
HTTP and no cluster: whoever calls hands over ids, the shopper's segment and the time.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from perso.errors import ArtifactError, EventLogError, NoChampionError, UnknownIdError
from perso.models.bundle import Bundle, load_bundle
from perso.models.request_features import SEGMENT
from perso.online.ranking import ItemFilter, Query, RankedItem, Ranker, Source
from perso.online.session import SessionSpec, summarize_events
from perso.online.strategies import StrategySpec
from perso.schema import DAYPARTS
from perso.segments.cube import DEFAULT_BOXES, SegmentCube
from perso.segments.names import OTHER
from perso.stream.event import Event
from perso.stream.protocol import EventStream

logger = logging.getLogger(__name__)

KNOWN_SEGMENTS: Final = frozenset({*SegmentCube(DEFAULT_BOXES).names, OTHER})
"""Labels that every shop may have."""

_CARD: Final = ("item_id", "title", "price", "categories")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Which items a caller wants to see, in the caller's own ids; see ``ItemFilter``."""

    categories: tuple[str, ...] = ()
    """An item needs one of these; empty: any."""
    price_min: float | None = None
    """Lowest price; an item without a known price fails any price condition."""
    price_max: float | None = None
    """Highest price."""
    in_stock: bool = False
    """Leave out items known to be out of stock."""
    exclude_item_ids: tuple[str, ...] = ()
    """Items that are left out; unknown ids are ignored."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """Who asks for a list, where, and under which conditions."""

    user_id: str | None = None
    """The customer, where known."""
    session_id: str | None = None
    """The visit; alone, it stands for an anonymous shopper, and what anybody did in it while
    logged in stays out."""
    k: int = 10
    """List length, 1 or more."""
    context: Mapping[str, str] = field(default_factory=dict)
    """Values of device, region and daypart; the daypart is the time of asking if not given."""
    segment: str | None = None
    """The customer's segment, where known."""
    attributes: Mapping[str, Any] | None = None
    """What the feature store knows of the customer, by feature name."""
    exclude_seen: bool = True
    """Leave out items the shopper already acted on, in training or just now: a recommendation
    shows something else than the page that led to it, and what the next training will hide is
    hidden now."""
    conditions: Conditions = field(default_factory=Conditions)
    """Which items may be shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerItem:
    """One place of a list, with the item's card."""

    item_id: str
    """The caller's id."""
    score: float
    """Comparable with the other items of the same source."""
    source: Source
    """What put the item here."""
    title: str | None
    """From the catalogue, as are the next two."""
    price: float | None
    """In the catalogue's currency."""
    categories: Sequence[str]
    """Empty where unknown."""
    boosted_by: tuple[str, ...] = ()
    """Names of the strategy rules that moved it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One list and where it came from."""

    model_version: str
    """The version whose bundle made the list."""
    rung: Source | None
    """The best rung of the ladder that gave an item; None for an empty list."""
    num_recent_events: int
    """Events of this user or session that the list already knows; none without consent."""
    is_degraded: bool
    """Whether the event log could not be read, so that the newest events are missing."""
    items: list[AnswerItem]
    """Best first."""
    strategies: tuple[str, ...] = ()
    """Names of the rules that concerned the shopper."""


@dataclass(frozen=True, kw_only=True)
class _Served:
    version: str
    bundle: Bundle
    ranker: Ranker
    trained_until: datetime
    session_spec: SessionSpec
    cards: Mapping[str, pa.Array]
    """Catalogue columns by name, each in one piece."""


class LiveRecommender:
    """The served model and the event log, asked together. Safe to share between threads."""

    def __init__(
        self,
        log: EventStream,
        *,
        spec: SessionSpec | None = None,
        strategies: StrategySpec | None = None,
    ) -> None:
        """Nothing answers yet.

        Args:
            log: Where the newest events are.
            spec: How they are weighed; a bundle that says which event weights it was trained with
                replaces those.
            strategies: The shop's rules; none: lists are the model's own.
        """
        self._log = log
        self._spec = spec or SessionSpec()
        self._strategies = strategies or StrategySpec()
        self._served: _Served | None = None
        self._log_is_down = False

    @property
    def version(self) -> str | None:
        """The version that answers now, None before the first."""
        return None if self._served is None else self._served.version

    def served(self) -> tuple[str, Bundle]:
        """The version that answers now, and its bundle.

        Raises:
            NoChampionError: If there is none yet.
        """
        served = self._current()
        return served.version, served.bundle

    def load(self, version: str, folder: Path) -> None:
        """Load a bundle, warm it, then let it answer in place of the one before.

        Answers that are being made meanwhile finish with the old bundle.

        Raises:
            ArtifactError: If the bundle is damaged or foreign; the old one goes on answering.
        """
        self.serve(version, load_bundle(folder, verify=True))

    def serve(self, version: str, bundle: Bundle) -> None:
        """Let a loaded bundle answer; see :meth:`load`.

        Raises:
            ArtifactError: If the event weights in its manifest are none.
        """
        ranker = Ranker(bundle, strategies=self._strategies)
        bundle.users.index_of("")  # builds the look-up tables before a request has to
        bundle.items.index_of("")
        warm = ItemFilter(categories=("",), price_min=0.0, in_stock=True)
        ranker.recommend(Query(k=1, filters=warm))
        trained_until = datetime.fromisoformat(bundle.manifest["trained_until"])
        cards = bundle.catalog.select(_CARD).combine_chunks()
        self._served = _Served(
            version=version,
            bundle=bundle,
            ranker=ranker,
            trained_until=trained_until,
            session_spec=_with_trained_weights(self._spec, bundle),
            cards={name: cards[name].chunk(0) for name in _CARD},
        )
        self._warn_of_idle_rules(self._served)

    def recommend(self, question: Question, *, now: datetime) -> Answer:
        """The list for one shopper at an instant.

        A log that cannot be read costs the newest events, not the answer.

        Raises:
            NoChampionError: If no model is served yet.
        """
        served = self._current()
        events = self._recent(question)
        session = summarize_events(
            events or (),
            served.bundle.items,
            as_of=now,
            trained_until=served.trained_until,
            boost=served.bundle.model.recent_boost,
            spec=served.session_spec,
        )
        user_id = question.user_id
        query = Query(
            k=question.k,
            user_index=-1 if user_id is None else served.bundle.users.index_of(user_id),
            session=session,
            segment=question.segment,
            attributes=question.attributes,
            context={"daypart": DAYPARTS[now.hour // 6], **question.context},
            exclude_seen=question.exclude_seen,
            filters=_to_filter(question.conditions, served.bundle),
        )
        ranked = served.ranker.recommend(query)
        return _answer(
            served,
            ranked,
            num_recent_events=session.num_events,
            is_degraded=events is None,
            strategies=tuple(served.ranker.strategies_for(query)),
        )

    def known_segments(self) -> frozenset[str]:
        """Every label that a question may name: of training, of the rules, of the default cube.

        Raises:
            NoChampionError: If no model is served yet.
        """
        return self._strategies.segments | _segments_of_shop(self._current().bundle)

    def similar(self, item_id: str, *, k: int, conditions: Conditions | None = None) -> Answer:
        """The items closest to one item, the same for every shopper.

        Raises:
            NoChampionError: If no model is served yet.
            UnknownIdError: If the model does not know the item.
        """
        served = self._current()
        filters = _to_filter(conditions or Conditions(), served.bundle)
        ranked = served.ranker.similar(_index_of(item_id, served), k=k, filters=filters)
        return _answer(served, ranked, num_recent_events=0, is_degraded=False)

    def bought_together(
        self, item_id: str, *, k: int, conditions: Conditions | None = None
    ) -> Answer:
        """The items that go with one item, the same for every shopper; then similar ones.

        Raises:
            NoChampionError: If no model is served yet.
            UnknownIdError: If the model does not know the item.
        """
        served = self._current()
        filters = _to_filter(conditions or Conditions(), served.bundle)
        ranked = served.ranker.bought_together(_index_of(item_id, served), k=k, filters=filters)
        return _answer(served, ranked, num_recent_events=0, is_degraded=False)

    def count_unknown_items(self, events: Sequence[Event]) -> int:
        """Events on items that the served model does not know: new items, or misspelt ids."""
        if self._served is None:
            return 0
        item_ids = [event.item_id for event in events if event.item_id is not None]
        return int((self._served.bundle.items.indices_of(item_ids) < 0).sum())

    def _current(self) -> _Served:
        if self._served is None:
            raise NoChampionError("no model has been promoted yet; run `perso tune`")
        return self._served

    def _warn_of_idle_rules(self, served: _Served) -> None:
        """A misspelt label in a rule is no error, since a shop names its segments as it likes."""
        if idle := served.ranker.idle_rules:
            logger.warning("no item of version %s meets rules %s", served.version, idle)
        if strange := sorted(self._strategies.segments - _segments_of_shop(served.bundle)):
            logger.warning(
                "rules name segments that version %s was not trained with: %s",
                served.version,
                strange,
            )

    def _recent(self, question: Question) -> list[Event] | None:
        """The shopper's newest events, None where the log is down."""
        try:
            events = self._log.recent(
                user_id=question.user_id,
                session_id=question.session_id,
                limit=self._spec.num_events,
            )
        except EventLogError as error:
            if not self._log_is_down:
                logger.warning("answers do without the newest events: %s", error)
            self._log_is_down = True
            return None
        if self._log_is_down:
            logger.warning("the event log can be read again")
        self._log_is_down = False
        return events


def _with_trained_weights(spec: SessionSpec, bundle: Bundle) -> SessionSpec:
    """The spec with the weights that the bundle's interactions were made with, where it says so.

    Training and fold-in would otherwise disagree on what a type of event means.
    """
    prepare = bundle.manifest.get("spec", {}).get("prepare", {})
    tables = {name: prepare[name] for name in ("event_weights", "value_weights") if name in prepare}
    try:
        return replace(spec, **tables)
    except (AttributeError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"the bundle's event weights cannot be used: {error}; train it again"
        ) from error


def _segments_of_shop(bundle: Bundle) -> frozenset[str]:
    """Labels that training saw, and those that every shop may have."""
    trained, _ = bundle.popularity.slices.get(SEGMENT, ((), None))
    return KNOWN_SEGMENTS.union(trained)


def _index_of(item_id: str, served: _Served) -> int:
    index = served.bundle.items.index_of(item_id)
    if index < 0:
        raise UnknownIdError(f"item_id {item_id!r} is not known to model {served.version}")
    return index


def _to_filter(conditions: Conditions, bundle: Bundle) -> ItemFilter:
    excluded = bundle.items.indices_of(conditions.exclude_item_ids)
    return ItemFilter(
        categories=conditions.categories,
        price_min=conditions.price_min,
        price_max=conditions.price_max,
        in_stock=conditions.in_stock,
        exclude_items=tuple(excluded[excluded >= 0].tolist()),
    )


def _answer(
    served: _Served,
    ranked: Sequence[RankedItem],
    *,
    num_recent_events: int,
    is_degraded: bool,
    strategies: tuple[str, ...] = (),
) -> Answer:
    return Answer(
        model_version=served.version,
        rung=ranked[0].source if ranked else None,
        num_recent_events=num_recent_events,
        is_degraded=is_degraded,
        items=[_answer_item(served, item) for item in ranked],
        strategies=strategies,
    )


def _answer_item(served: _Served, item: RankedItem) -> AnswerItem:
    # One cell at a time: for a list's length, that is a fifth of what Table.take costs.
    item_id, title, price, categories = (
        served.cards[column][item.item_index].as_py() for column in _CARD
    )
    return AnswerItem(
        item_id=item_id,
        score=item.score,
        source=item.source,
        title=title,
        price=price,
        categories=categories or (),
        boosted_by=item.boosted_by,
    )
