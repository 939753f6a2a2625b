from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.sparse.linalg import svds

from perso.data.events import check_events
from perso.data.readers import hash_file
from perso.data.shop import CURRENCY, USERS_PER_BLOCK
from perso.data.synthetic import ShopSpec, generate_shop, load_truth, write_shop
from perso.errors import ArtifactError
from perso.schema import CATALOG_SCHEMA, EVENT_SCHEMA, EVENT_TYPES

SMALL = ShopSpec(num_users=600, num_items=80, num_categories=8, num_days=30)
US_PER_DAY = 86_400_000_000


@pytest.fixture(scope="module")
def shop():
    return generate_shop(ShopSpec())


@pytest.fixture(scope="module")
def arrays(shop):
    """The default shop's events as numpy columns, ids as truth rows, days since the start."""
    events = shop.events
    return {
        "kind": np.array(events["event_type"].to_pylist()),
        "user": np.array([int(u[1:]) for u in events["user_id"].to_pylist()]),
        "item": np.array([int(i[1:]) for i in events["item_id"].to_pylist()]),
        "day": (events["timestamp"].cast(pa.int64()).to_numpy() - ShopSpec().start_us) / US_PER_DAY,
    }


def test_the_default_shop_has_the_size_it_promises(shop):
    assert 150_000 < shop.events.num_rows < 250_000
    assert shop.events.schema.equals(EVENT_SCHEMA)
    assert shop.catalog.schema.equals(CATALOG_SCHEMA)
    assert shop.catalog["item_id"].to_pylist() == shop.truth.item_ids
    assert set(pc.unique(shop.events["user_id"]).to_pylist()) <= set(shop.truth.user_ids)
    assert set(pc.unique(shop.events["event_type"]).to_pylist()) <= set(EVENT_TYPES)


def test_every_event_is_valid_distinct_and_inside_the_period(shop):
    checked = check_events(shop.events)
    assert checked["reject_reason"].null_count == shop.events.num_rows
    assert pc.count_distinct(shop.events["event_id"]).as_py() == shop.events.num_rows
    first, last = pc.min_max(shop.events["timestamp"]).as_py().values()
    assert datetime(2025, 1, 1, tzinfo=UTC) <= first < last < datetime(2025, 4, 1, tzinfo=UTC)


def test_equal_specs_give_equal_bytes_and_other_seeds_other_shops(tmp_path: Path):
    for name, spec in (("a", SMALL), ("b", SMALL), ("c", replace(SMALL, seed=8))):
        write_shop(spec, tmp_path / name)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == 4
    for file in files:
        a, b, c = (hash_file(str(tmp_path / name / file)) for name in "abc")
        assert a == b != c, file


def test_a_block_of_users_depends_on_no_other_block():
    one = generate_shop(replace(SMALL, num_users=USERS_PER_BLOCK)).events
    assert generate_shop(SMALL).events.slice(0, one.num_rows).equals(one.combine_chunks())


def test_carts_follow_views_and_purchases_follow_carts(shop):
    seen: dict[str, dict[tuple, datetime]] = {"view_item": {}, "add_to_cart": {}}
    before = {"add_to_cart": "view_item", "purchase": "add_to_cart"}
    columns = ("event_type", "session_id", "item_id", "timestamp")
    rows = zip(*(shop.events[name].to_pylist() for name in columns), strict=True)
    for kind, session, item, at in rows:
        if kind in before:
            assert seen[before[kind]][session, item] <= at
        if kind in seen:
            seen[kind].setdefault((session, item), at)
    counts = {
        v["values"]: v["counts"] for v in pc.value_counts(shop.events["event_type"]).to_pylist()
    }
    assert counts["view_item"] > 3 * counts["add_to_cart"] > 3 * counts["purchase"] > 0


def test_purchases_carry_what_was_paid(shop):
    bought = shop.events.filter(pc.equal(shop.events["event_type"], "purchase"))
    price = dict(zip(shop.truth.item_ids, shop.truth.items.price_I.tolist(), strict=True))
    for item, quantity, value, currency in zip(
        *(bought[name].to_pylist() for name in ("item_id", "quantity", "value", "currency")),
        strict=True,
    ):
        assert value == pytest.approx(price[item] * quantity, abs=0.01)
        assert currency == CURRENCY


def test_nobody_acts_before_arriving_or_after_leaving_and_no_item_before_its_launch(shop, arrays):
    users, items = shop.truth.users, shop.truth.items
    acts = arrays["kind"] != "rate_item"  # a rating may come after the last visit
    day, user, item = (arrays[name][acts] for name in ("day", "user", "item"))
    assert (np.floor(day) >= users.first_day_U[user]).all()
    assert (day <= users.last_day_U[user] + 1.1).all()  # a late visit may pass midnight
    assert (day >= items.launch_day_I[item]).all()
    assert (users.first_day_U > 0).mean() == pytest.approx(0.25, abs=0.05)
    assert (users.last_day_U < 89).mean() == pytest.approx(0.25, abs=0.05)
    assert (items.launch_day_I > 0).mean() == pytest.approx(0.15, abs=0.05)


def test_views_follow_the_true_affinity(shop, arrays):
    """In each shopper's category, items are viewed in proportion to the softmax of affinity."""
    items = shop.truth.items
    odds_UI = np.exp(shop.truth.affinity(np.arange(2_000)))
    odds_UI[:, items.launch_day_I > 0] = 0
    of_category_IC = np.eye(24)[items.category_I]
    share_UI = odds_UI / (odds_UI @ of_category_IC)[:, items.category_I]
    views = (arrays["kind"] == "view_item") & (items.launch_day_I[arrays["item"]] == 0)
    seen_UI = np.zeros_like(share_UI)
    np.add.at(seen_UI, (arrays["user"][views], arrays["item"][views]), 1)
    expected_UI = share_UI * (seen_UI @ of_category_IC)[:, items.category_I]

    # Pairs that the truth holds equally likely are, together, viewed as often as it says.
    for low, high in ((0.5, 1), (1, 2), (2, 4)):
        cells = (expected_UI >= low) & (expected_UI < high)
        assert cells.sum() > 1_000
        assert seen_UI[cells].sum() == pytest.approx(expected_UI[cells].sum(), rel=0.05)
    assert np.corrcoef(expected_UI.sum(axis=0), seen_UI.sum(axis=0))[0, 1] > 0.98

    category_share = odds_UI @ of_category_IC / odds_UI.sum(axis=1, keepdims=True)
    expected_C = (category_share * seen_UI.sum(axis=1, keepdims=True)).sum(axis=0)
    assert np.corrcoef(expected_C, (seen_UI @ of_category_IC).sum(axis=0))[0, 1] > 0.9


def test_tastes_differ_between_contexts_and_spenders(shop, arrays):
    users, items = shop.truth.users, shop.truth.items
    views = arrays["kind"] == "view_item"
    heavy = users.activity_U > np.quantile(users.activity_U, 0.8)
    light = users.activity_U < np.quantile(users.activity_U, 0.2)
    log_price = items.log_price_I[arrays["item"]]
    by_heavy = log_price[views & heavy[arrays["user"]]].mean()
    by_light = log_price[views & light[arrays["user"]]].mean()
    assert by_heavy > by_light + 0.3

    hour = (arrays["day"] % 1 * 4).astype(int)
    shares = [
        np.bincount(items.category_I[arrays["item"][views & (hour == part)]], minlength=24)
        for part in range(1, 4)
    ]
    shares = [share / share.sum() for share in shares]
    assert np.abs(shares[0] - shares[2]).sum() > 0.15

    device = np.array(shop.events["device"].to_pylist())
    rates = {
        name: (arrays["kind"][device == name] == "purchase").sum()
        / (views & (device == name)).sum()
        for name in ("desktop", "mobile")
    }
    assert rates["desktop"] > 1.3 * rates["mobile"]


def test_consumables_are_bought_again(shop, arrays):
    bought = arrays["kind"] == "purchase"
    pairs, counts = np.unique(
        np.stack([arrays["user"][bought], arrays["item"][bought]]), axis=1, return_counts=True
    )
    consumable = shop.truth.items.consumable_C[shop.truth.items.category_I[pairs[1]]]
    assert (counts[consumable] > 1).mean() > 1.5 * (counts[~consumable] > 1).mean()


def test_factorization_beats_popularity_and_the_truth_beats_both(shop, arrays):
    """The right answer is learnable from the first nine tenths, and not absurdly easy."""
    views = np.isin(arrays["kind"], ("view_item", "add_to_cart", "purchase"))
    day, user, item = (arrays[name][views] for name in ("day", "user", "item"))
    cut = np.quantile(day, 0.9)
    past_UI, future_UI = np.zeros((2_000, 600)), np.zeros((2_000, 600))
    np.add.at(past_UI, (user[day < cut], item[day < cut]), 1)
    np.add.at(future_UI, (user[day >= cut], item[day >= cut]), 1)
    fresh_UI = (future_UI > 0) & (past_UI == 0)
    who = np.flatnonzero((past_UI.sum(axis=1) > 0) & (fresh_UI.sum(axis=1) > 0))

    def recall_at_20(scores_UI):
        hidden = np.where(past_UI[who] > 0, -np.inf, scores_UI[who])
        top = np.argsort(-hidden, axis=1, kind="stable")[:, :20]
        hits = np.take_along_axis(fresh_UI[who], top, axis=1).sum(axis=1)
        return (hits / fresh_UI[who].sum(axis=1)).mean()

    left, strength, right = svds(np.log1p(past_UI), k=16, random_state=0)
    popularity = recall_at_20(np.tile(past_UI.sum(axis=0), (2_000, 1)))
    factors = recall_at_20(left * strength @ right)
    truth = recall_at_20(shop.truth.affinity(np.arange(2_000)))
    assert factors > 1.5 * popularity
    assert factors < truth < 0.6


def test_the_truth_is_kept_beside_the_events(tmp_path: Path):
    write_shop(SMALL, tmp_path / "shop")
    kept, made = load_truth(tmp_path / "shop"), generate_shop(SMALL).truth
    users = np.array([0, 599])
    assert np.array_equal(kept.affinity(users), made.affinity(users))
    assert np.array_equal(kept.users.last_day_U, made.users.last_day_U)
    with pytest.raises(ArtifactError, match="no truth"):
        load_truth(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_users": 0}, "num_users is 0; give 1 or more"),
        ({"num_items": 3}, "num_items is 3; give at least one per category, 24"),
        ({"churn_rate": 1.5}, "churn_rate is 1.5; give a share from 0 to 1"),
        ({"views_per_session": 0}, "views_per_session is 0"),
    ],
)
def test_an_impossible_shop_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        ShopSpec(**change)


def test_the_smallest_shop_works():
    spec = ShopSpec(num_users=1, num_items=1, num_categories=1, num_days=1, start=date(2024, 2, 29))
    assert generate_shop(spec).events.num_rows > 0
