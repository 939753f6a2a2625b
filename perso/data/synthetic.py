"""The synthetic shop: shoppers with hidden tastes leave a log of views, carts and purchases.

Decides what shoppers do, given what they want (``perso.data.shop``). Users are simulated in
blocks that depend on the spec and their number only, so memory is that of one block and the bytes
of a shop follow from its spec.

Shapes: B users of a block, I items, C categories, S visits, P dayparts, E devices.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perso.data.shop import (
    CURRENCY,
    DEVICES,
    REGIONS,
    US_PER_DAY,
    USERS_PER_BLOCK,
    ShopItems,
    ShopSpec,
    ShopTruth,
    ShopUsers,
    affinity,
    describe_items,
    draw_items,
    draw_users,
    join_users,
)
from perso.schema import DAYPARTS, EVENT_SCHEMA, TIMESTAMP

__all__ = [
    "CATALOG_FILE",
    "EVENTS_FOLDER",
    "TRUTH_FILE",
    "ShopSpec",
    "ShopTruth",
    "SyntheticShop",
    "generate_shop",
    "load_truth",
    "write_shop",
]

EVENTS_FOLDER: Final = "events"
CATALOG_FILE: Final = "catalog.parquet"
TRUTH_FILE: Final = "truth.npz"

_KINDS: Final = (
    "view_item",
    "add_to_cart",
    "remove_from_cart",
    "purchase",
    "rate_item",
)
_VIEW, _CART, _REMOVE, _PURCHASE, _RATE = range(5)
_CAMPAIGNS: Final = ("newsletter", "search")
_US: Final = 1_000_000
_SECONDS_PER_VIEW: Final = 50
_FOCUS: Final = 0.7  # share of a visit's views that stay in the category it came for
_CONVERSION_BY_DEVICE: Final = np.array([0.35, -0.35, 0.0])  # desktop buys, mobile browses


@dataclass(frozen=True, kw_only=True)
class SyntheticShop:
    """A generated shop in memory."""

    events: pa.Table
    """EVENT_SCHEMA, by block of users and in time order within each."""
    catalog: pa.Table
    """CATALOG_SCHEMA, one row per item."""
    truth: ShopTruth
    """What the events follow from."""


@dataclass(frozen=True, kw_only=True)
class _Actions:
    """Events of one block as aligned arrays."""

    kind: NDArray[np.int64]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    at_us: NDArray[np.int64]
    visit: NDArray[np.int64]
    device: NDArray[np.int64]
    value: NDArray[np.float64]
    quantity: NDArray[np.int64]

    def where(self, rows: NDArray[np.bool_]) -> "_Actions":
        return _Actions(**{name: column[rows] for name, column in vars(self).items()})


def generate_shop(spec: ShopSpec) -> SyntheticShop:
    """A whole shop in memory; :func:`write_shop` is for large ones."""
    items = draw_items(spec)
    blocks = list(_simulate_blocks(spec, items))
    return SyntheticShop(
        events=pa.concat_tables([events for _, events in blocks]),
        catalog=describe_items(spec, items),
        truth=ShopTruth(items=items, users=join_users([users for users, _ in blocks])),
    )


def write_shop(spec: ShopSpec, folder: Path | str) -> None:
    """Write a shop: ``events/`` (a Parquet file per block of users), the catalogue, the truth.

    Raises:
        FileExistsError: If the folder holds a shop already.
    """
    folder = Path(folder)
    (folder / EVENTS_FOLDER).mkdir(parents=True)
    items = draw_items(spec)
    all_users = []
    for block, (users, events) in enumerate(_simulate_blocks(spec, items)):
        all_users.append(users)
        pq.write_table(
            events, folder / EVENTS_FOLDER / f"block-{block:05d}.parquet", compression="zstd"
        )
    pq.write_table(describe_items(spec, items), folder / CATALOG_FILE, compression="zstd")
    ShopTruth(items=items, users=join_users(all_users)).save(folder / TRUTH_FILE)


def load_truth(folder: Path | str) -> ShopTruth:
    """The truth of a shop that :func:`write_shop` wrote.

    Raises:
        ArtifactError: If the folder holds none.
    """
    return ShopTruth.load(Path(folder) / TRUTH_FILE)


def _simulate_blocks(spec: ShopSpec, items: ShopItems) -> Iterator[tuple[ShopUsers, pa.Table]]:
    for block in range(spec.num_blocks):
        users = draw_users(spec, items, block)
        yield users, _simulate_block(spec, items, users, block)


def _simulate_block(spec: ShopSpec, items: ShopItems, users: ShopUsers, block: int) -> pa.Table:
    rng = np.random.default_rng([spec.seed, 4, block])
    visits = _draw_visits(spec, users, rng)
    views = _draw_views(spec, items, users, visits, rng)
    actions = [views, *_follow_funnel(items, users, views, rng)]
    num_visits = len(visits["user"])
    bought = actions[-1]
    for _ in range(2):  # a consumable may be bought again, and once more
        again = _buy_again(spec, items, users, bought, num_visits, rng)
        num_visits += int((again.kind == _PURCHASE).sum())
        actions.append(again)
        bought = again.where(again.kind == _PURCHASE)
    joined = _concatenate(actions)
    joined = _concatenate([joined, _rate(spec, items, users, joined, rng)])
    end_us = spec.start_us + spec.num_days * US_PER_DAY
    return _to_events(spec, users, joined.where(joined.at_us < end_us), block, num_visits, rng)


def _draw_visits(
    spec: ShopSpec, users: ShopUsers, rng: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    """User, start and device of every visit, shape (S,) each."""
    num_days_B = users.last_day_U - users.first_day_U + 1
    mean_B = spec.sessions_per_user * users.activity_U * num_days_B / spec.num_days
    user = np.repeat(np.arange(len(mean_B)), np.maximum(rng.poisson(mean_B), 1))
    day = users.first_day_U[user] + (rng.random(len(user)) * num_days_B[user]).astype(np.int64)
    any_daypart = rng.choice(len(DAYPARTS), len(user), p=[0.05, 0.2, 0.35, 0.4])
    daypart = np.where(rng.random(len(user)) < 0.5, users.daypart_U[user], any_daypart)
    seconds = ((daypart + rng.random(len(user))) * 6 * 3600).astype(np.int64)
    any_device = rng.integers(0, len(DEVICES), len(user))
    return {
        "user": user,
        "start_us": spec.start_us + day * US_PER_DAY + seconds * _US,
        "daypart": daypart,
        "device": np.where(rng.random(len(user)) < 0.85, users.device_U[user], any_device),
    }


def _draw_views(
    spec: ShopSpec,
    items: ShopItems,
    users: ShopUsers,
    visits: dict[str, NDArray[np.int64]],
    rng: np.random.Generator,
) -> _Actions:
    """What is viewed: a category by taste and context, then an item of it by affinity."""
    num_items, num_categories = spec.num_items, spec.num_categories
    by_category_I = np.argsort(items.category_I, kind="stable")
    first_C = np.searchsorted(items.category_I[by_category_I], np.arange(num_categories))
    odds_BI = np.exp(affinity(users, items)[:, by_category_I])
    mass_BC = np.add.reduceat(odds_BI, first_C, axis=1)

    contexts = np.random.default_rng([spec.seed, 5])  # the same in every block
    daypart_PC = _draw_effects(len(DAYPARTS), num_categories, 0.6, contexts)
    device_EC = _draw_effects(len(DEVICES), num_categories, 0.3, contexts)
    odds_SC = mass_BC[visits["user"]]
    odds_SC = odds_SC * daypart_PC[visits["daypart"]] * device_EC[visits["device"]]
    chances_SC = np.cumsum(odds_SC / odds_SC.sum(axis=1, keepdims=True), axis=1)

    num_views_S = 1 + rng.poisson(max(spec.views_per_session - 1, 0), len(odds_SC))
    visit = np.repeat(np.arange(len(odds_SC)), num_views_S)
    place = np.arange(len(visit)) - np.repeat(np.cumsum(num_views_S) - num_views_S, num_views_S)
    purpose_S = _pick(chances_SC, rng)
    is_focused = rng.random(len(visit)) < _FOCUS
    category = np.where(is_focused, purpose_S[visit], _pick(chances_SC[visit], rng))

    # One running sum over all users' items: each (user, category) is an interval of it.
    sums = np.concatenate([[0.0], np.cumsum(odds_BI)])
    user = visits["user"][visit]
    low = user * num_items + first_C[category]
    high = user * num_items + np.append(first_C[1:], num_items)[category]
    target = sums[low] + rng.random(len(visit)) * (sums[high] - sums[low])
    drawn = np.clip(np.searchsorted(sums, target, side="right") - 1, low, high - 1)
    item = by_category_I[drawn - user * num_items]

    pause = rng.integers(0, _SECONDS_PER_VIEW - 10, len(visit))
    at_us = visits["start_us"][visit] + (place * _SECONDS_PER_VIEW + pause) * _US
    is_launched = at_us >= spec.start_us + items.launch_day_I[item] * US_PER_DAY
    views = _Actions(
        kind=np.full(len(visit), _VIEW),
        user=user,
        item=item,
        at_us=at_us,
        visit=visit,
        device=visits["device"][visit],
        value=np.full(len(visit), np.nan),
        quantity=np.zeros(len(visit), np.int64),
    )
    return views.where(is_launched)


def _draw_effects(
    num_contexts: int, num_categories: int, deviation: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Factors on the odds of each category in each context; they level out over the contexts."""
    log_odds = rng.normal(0, deviation, (num_contexts, num_categories))
    factors: NDArray[np.float64] = np.exp(log_odds - log_odds.mean(axis=0))
    return factors


def _pick(chances: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One column per row of cumulative chances."""
    below: NDArray[np.bool_] = chances[:, :-1] < rng.random((len(chances), 1))
    picked: NDArray[np.int64] = below.sum(axis=1)
    return picked


def _fit(items: ShopItems, users: ShopUsers, actions: _Actions) -> NDArray[np.float64]:
    """How well each action's item fits its shopper's taste, -1 to 1."""
    fit: NDArray[np.float64] = np.einsum(
        "ad,ad->a", users.tastes_UD[actions.user], items.tastes_ID[actions.item]
    )
    return fit


def _follow_funnel(
    items: ShopItems, users: ShopUsers, views: _Actions, rng: np.random.Generator
) -> tuple[_Actions, _Actions, _Actions]:
    """Carts, removals and purchases that follow from views."""
    fit = _fit(items, users, views)
    resistance = 0.4 * users.price_sensitivity_U[views.user] * items.log_price_I[views.item]
    odds = -3.0 + 2.2 * fit - resistance + _CONVERSION_BY_DEVICE[views.device]
    is_carted = rng.random(len(odds)) < _sigmoid(odds)
    carts = views.where(is_carted)
    carts = dataclasses.replace(
        carts, kind=np.full(len(carts.kind), _CART), at_us=carts.at_us + 8 * _US
    )
    carts = dataclasses.replace(carts, quantity=1 + rng.poisson(0.2, len(carts.kind)))
    is_bought = rng.random(len(carts.kind)) < _sigmoid(odds[is_carted] + 2.0)
    left = carts.where(~is_bought)
    removed = left.where(rng.random(len(left.kind)) < 0.3)
    removed = dataclasses.replace(
        removed, kind=np.full(len(removed.kind), _REMOVE), at_us=removed.at_us + 20 * _US
    )
    bought = carts.where(is_bought)
    last_us = np.zeros(int(views.visit.max(initial=-1)) + 1, np.int64)
    np.maximum.at(last_us, views.visit, views.at_us)
    bought = dataclasses.replace(
        bought,
        kind=np.full(len(bought.kind), _PURCHASE),
        at_us=last_us[bought.visit] + 90 * _US,
        value=np.round(items.price_I[bought.item] * bought.quantity, 2),
    )
    return carts, removed, bought


def _buy_again(
    spec: ShopSpec,
    items: ShopItems,
    users: ShopUsers,
    bought: _Actions,
    num_visits: int,
    rng: np.random.Generator,
) -> _Actions:
    """Short visits, weeks later, that view, cart and buy the same consumable."""
    is_consumable = items.consumable_C[items.category_I[bought.item]]
    again = bought.where(is_consumable & (rng.random(len(bought.kind)) < spec.repeat_rate))
    pause_days = rng.lognormal(np.log(18), 0.35, len(again.kind))
    at_us = again.at_us + (pause_days * US_PER_DAY / _US).astype(np.int64) * _US
    is_there = (at_us - spec.start_us) // US_PER_DAY <= users.last_day_U[again.user]
    again = dataclasses.replace(again, at_us=at_us).where(is_there)
    again = dataclasses.replace(again, visit=num_visits + np.arange(len(again.kind)))
    steps = []
    for kind, seconds_before in ((_VIEW, 80), (_CART, 60), (_PURCHASE, 0)):
        step = dataclasses.replace(
            again,
            kind=np.full(len(again.kind), kind),
            at_us=again.at_us - seconds_before * _US,
        )
        if kind != _PURCHASE:
            step = dataclasses.replace(step, value=np.full(len(step.kind), np.nan))
        steps.append(step)
    return _concatenate(steps)


def _rate(
    spec: ShopSpec, items: ShopItems, users: ShopUsers, actions: _Actions, rng: np.random.Generator
) -> _Actions:
    """Stars, days after a purchase, by how well the item fits."""
    bought = actions.where(actions.kind == _PURCHASE)
    rated = bought.where(rng.random(len(bought.kind)) < spec.rating_rate)
    fit = _fit(items, users, rated)
    stars = np.clip(np.round(2.4 + 2.4 * fit + rng.normal(0, 0.6, len(fit))), 1, 5)
    return dataclasses.replace(
        rated,
        kind=np.full(len(stars), _RATE),
        at_us=rated.at_us + rng.integers(2 * 86_400, 10 * 86_400, len(stars)) * _US,
        value=stars,
        quantity=np.zeros(len(stars), np.int64),
    )


def _sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-log_odds))


def _concatenate(parts: list[_Actions]) -> _Actions:
    return _Actions(
        **{
            f.name: np.concatenate([getattr(part, f.name) for part in parts])
            for f in dataclasses.fields(_Actions)
        }
    )


def _to_events(
    spec: ShopSpec,
    users: ShopUsers,
    actions: _Actions,
    block: int,
    num_visits: int,
    rng: np.random.Generator,
) -> pa.Table:
    """The block's actions as EVENT_SCHEMA rows in time order."""
    campaign_S = rng.choice(len(_CAMPAIGNS) + 1, max(num_visits, 1), p=[0.08, 0.12, 0.8])
    order = np.lexsort((actions.item, actions.kind, actions.user, actions.at_us))
    num_events = len(order)
    kind = actions.kind[order]
    user = actions.user[order]
    visit = actions.visit[order]
    campaign = campaign_S[visit]
    is_order = np.isin(kind, (_PURCHASE,))
    columns: dict[str, pa.Array] = {f.name: pa.nulls(num_events, f.type) for f in EVENT_SCHEMA}
    columns |= {
        "event_id": _numbered(f"e{block:05d}-", np.arange(num_events), 7),
        "event_type": _named(_KINDS, kind),
        "user_id": _numbered("u", user + block * USERS_PER_BLOCK, 6),
        "session_id": _numbered(f"s{block:05d}-", visit, 6),
        "item_id": _numbered("i", actions.item[order], 5),
        "timestamp": pa.array(actions.at_us[order]).cast(TIMESTAMP),
        "value": pa.array(actions.value[order], from_pandas=True),
        "quantity": pa.array(actions.quantity[order], mask=actions.quantity[order] == 0),
        "currency": pc.if_else(pa.array(is_order), CURRENCY, pa.scalar(None, pa.string())),
        "device": _named(DEVICES, actions.device[order]),
        "region": _named(REGIONS, users.region_U[user]),
        "campaign": pa.array(_CAMPAIGNS).take(pa.array(campaign, mask=campaign == len(_CAMPAIGNS))),
    }
    return pa.table(columns).cast(EVENT_SCHEMA)


def _named(names: tuple[str, ...], codes: NDArray[np.int64]) -> pa.Array:
    return pa.array(names).take(pa.array(codes))


def _numbered(prefix: str, numbers: NDArray[np.int64], width: int) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width=width, padding="0")
    return pc.binary_join_element_wise(prefix, digits, "")
