"""The point-in-time join, with rows made by hand."""

from datetime import datetime, timedelta

import pyarrow as pa
import pytest

from perso.dictionary import SERVICES, VIEWS
from perso.errors import FeatureStoreError
from perso.features.history import feature_schema
from perso.features.store import open_features
from perso.schema import TIMESTAMP


@pytest.fixture
def put(features, make_rows):
    """put(at, created=..., ann="new"): user_rfm rows with these segments."""

    def write(at, *, created=None, **segments):
        given = {user: {"segment": segment} for user, segment in segments.items()}
        table = make_rows("user_rfm", at, created=created, **given)
        features.rows.write_rows(at, {"user_rfm": table})

    return write


def asked(*pairs, **columns):
    users, times = zip(*pairs, strict=True)
    return pa.table(
        {"user_id": list(users), "event_timestamp": pa.array(times, TIMESTAMP), **columns}
    )


def segments(features, *users, as_of):
    return features.read_historical(users, as_of=as_of)["segment"].to_pylist()


def test_of_several_instants_the_latest_at_or_before_the_asked_one_is_taken(features, put, day):
    put(day(1), ann="new", bob="lost")
    put(day(10), ann="loyal")
    put(day(20), ann="champions", bob="champions")
    assert segments(features, "ann", "bob", as_of=day(9)) == ["new", "lost"]
    assert segments(features, "ann", "bob", as_of=day(10)) == ["loyal", "lost"]
    just_before = day(10) - timedelta(microseconds=1)
    assert segments(features, "ann", as_of=just_before) == ["new"]
    assert segments(features, "ann", "nobody", as_of=day(1) - timedelta(days=1)) == [None, None]


def test_each_row_sees_its_own_time(features, put, day):
    put(day(1), ann="new")
    put(day(10), ann="loyal")
    rows = asked(("ann", day(12)), ("ann", day(1)), ("ann", day(5)), ("ann", day(10)))
    assert features.join_historical(rows)["segment"].to_pylist() == ["loyal", "new", "new", "loyal"]


def test_rows_that_became_known_after_the_label_do_not_leak_into_it(features, put, day):
    """A correction of day 5 computed on day 20: training for day 6 must not see it."""
    put(day(4), ann="new")
    put(day(5), created=day(20), ann="champions")
    assert segments(features, "ann", as_of=day(6)) == ["new"]
    assert segments(features, "ann", as_of=day(20) - timedelta(seconds=1)) == ["new"]
    assert segments(features, "ann", as_of=day(20)) == ["champions"]


def test_a_replay_of_a_past_instant_is_seen_at_that_instant(features, put, day):
    """Computed today for a past instant: created is the instant, so training can use it."""
    put(day(5), created=day(5), ann="loyal")
    assert segments(features, "ann", as_of=day(5)) == ["loyal"]


def test_rows_older_than_the_time_to_live_are_not_believed_but_asked_rows_stay(features, put, day):
    put(day(1), ann="new")
    ttl = timedelta(days=VIEWS["user_rfm"].ttl_days)
    rows = asked(
        ("ann", day(1) + ttl), ("ann", day(1) + ttl + timedelta(seconds=1)), ("nobody", day(2))
    )
    assert features.join_historical(rows)["segment"].to_pylist() == ["new", None, None]


def test_each_view_is_joined_by_itself(features, make_rows, day):
    features.rows.write_rows(day(1), {"user_rfm": make_rows("user_rfm", day(1), ann={})})
    features.rows.write_rows(
        day(2), {"user_clusters": make_rows("user_clusters", day(2), ann={"cluster": "c1"})}
    )
    rows = asked(("ann", day(1)), ("ann", day(2)))
    found = features.join_historical(rows)
    assert found["cluster"].to_pylist() == [None, "c1"]
    assert found["segment"].null_count == 0


def test_rows_that_share_customer_and_time_all_come_back_with_their_own_columns(features, put, day):
    """A customer's candidates share an instant; Feast's default store merges such rows."""
    put(day(1), ann="new", bob="lost")
    rows = asked(
        ("bob", day(2)),
        ("ann", day(2)),
        ("ann", day(2)),
        ("nobody", day(2)),
        ("ann", day(2)),
        item_id=["i5", "i1", "i2", "i1", "i1"],
        label=[0.5, 1.0, 0.0, 0.0, 1.0],
    )
    found = features.join_historical(rows)
    assert found.select(rows.column_names).equals(rows)
    assert found["segment"].to_pylist() == ["lost", "new", "new", None, "new"]


def test_order_and_count_are_kept_for_many_rows(features, put, day):
    users = [f"u{i}" for i in range(50)]
    put(day(1), **{user: f"{user} then" for user in users})
    put(day(8), **{user: f"{user} now" for user in users[::2]})
    order = [(users[(i * 37) % 50], day(1 + (i * 11) % 20)) for i in range(500)]
    found = features.join_historical(asked(*order))
    expected = [
        f"{user} {'now' if at >= day(8) and int(user[1:]) % 2 == 0 else 'then'}"
        for user, at in order
    ]
    assert found["segment"].to_pylist() == expected
    assert found["user_id"].to_pylist() == [user for user, _ in order]


def test_every_column_of_every_service_survives_with_its_type(features, make_all, day):
    people, goods = ["ann", "bob", "cem", "dee"], ["i1", "i2"]
    tables = make_all(day(1), users=people, items=goods)
    features.rows.write_rows(day(1), tables)
    for service in SERVICES.values():
        ids = goods if service.name == "items_v1" else people
        found = features.read_historical(ids, as_of=day(2), service=service.name)
        entity = service.views()[0][0].entity
        assert found.column_names == [entity, *service.feature_names]
        assert found.drop_columns(entity).schema.equals(feature_schema(service))
        for view, names in service.views():
            written = tables[view.name]
            assert found[entity].to_pylist() == written[entity].to_pylist()
            for name in names:
                assert found[name].to_pylist() == written[name].to_pylist(), name


def test_an_empty_list_is_no_null(features, make_rows, day):
    given = {"ann": {"top_brands": []}, "bob": {"top_brands": ["B", "A"]}}
    table = make_rows("user_affinities", day(1), **given)
    features.rows.write_rows(day(1), {"user_affinities": table})
    found = features.read_historical(["nobody", "bob", "ann"], as_of=day(1))
    assert found["top_brands"].to_pylist() == [None, ["B", "A"], []]


def test_past_and_online_agree_on_the_newest_rows(features, make_all, day):
    features.rows.write_rows(day(1), make_all(day(1), users=["ann", "bob", "cem"]))
    features.rows.write_rows(day(2), make_all(day(2), users=["ann", "bob"], segment="loyal"))
    features.sync()
    ids = ["nobody", "ann", "bob"]
    past = features.read_historical(ids, as_of=day(2), service="user_segments_v1").to_pylist()
    online = features.read_online(ids, "user_segments_v1")
    for then, now in zip(past, online, strict=True):
        del then["user_id"]
        known = now or {}
        known.pop("event_timestamp", None)
        assert then == dict.fromkeys(then) | known
    assert online[0] is None


def test_repeats_come_back_as_asked_and_nothing_asked_is_an_empty_table(features, put, day):
    put(day(1), ann="new", bob="lost")
    found = features.read_historical(["bob", "nobody", "ann", "bob"], as_of=day(2))
    assert found["user_id"].to_pylist() == ["bob", "nobody", "ann", "bob"]
    assert found["segment"].to_pylist() == ["lost", None, "new", "lost"]
    empty = features.read_historical([], as_of=day(2))
    assert empty.schema == found.schema
    assert len(empty) == 0


def test_a_null_key_knows_nothing(features, put, day):
    put(day(1), ann="new")
    found = features.join_historical(asked((None, day(2)), ("ann", day(2)), (None, day(2))))
    assert found["segment"].to_pylist() == [None, "new", None]


def test_instants_of_any_time_zone_and_unit_are_understood(features, put, day):
    put(day(1), ann="new")
    put(day(2), ann="loyal")
    kind = pa.timestamp("ms", tz="Europe/Berlin")  # an hour ahead of UTC
    times = pa.array([day(2) - timedelta(minutes=1), day(2)], kind)
    rows = pa.table({"user_id": ["ann", "ann"], "event_timestamp": times})
    found = features.join_historical(rows)
    assert found["segment"].to_pylist() == ["new", "loyal"]
    assert found["event_timestamp"].type == kind


def test_rows_being_written_are_not_seen(features, put, make_rows, day):
    put(day(1), ann="new")
    features.rows.write_part(
        "user_rfm", day(2), 0, make_rows("user_rfm", day(2), ann={"segment": "loyal"})
    )
    assert segments(features, "ann", as_of=day(3)) == ["new"]


def test_rows_that_cannot_be_joined_are_refused_with_the_cure(features, put, day):
    put(day(1), ann="new")
    good = asked(("ann", day(2)))
    naive = pa.table({"user_id": ["ann"], "event_timestamp": [datetime(2026, 3, 2)]})
    for rows, words in (
        (good.drop_columns("user_id"), "rows have no column user_id"),
        (good.drop_columns("event_timestamp"), "rows have no column event_timestamp"),
        (naive, "give instants with a time zone"),
        (asked(("ann", None)), "event_timestamp is null in 1 rows"),
        (good.append_column("segment", pa.array(["x"])), r"already have columns \['segment'\]"),
    ):
        with pytest.raises(ValueError, match=words):
            features.join_historical(rows)
    with pytest.raises(ValueError, match="no feature service 'segments'"):
        features.join_historical(good, service="segments")
    with pytest.raises(ValueError, match="no time zone"):
        features.read_historical(["ann"], as_of=datetime(2026, 3, 1))


def test_a_past_nobody_wrote_is_one_sentence(features, workspace, day):
    for store in (features, open_features(workspace)):
        with pytest.raises(FeatureStoreError, match="perso segments run"):
            store.read_historical(["ann"], as_of=day(1))
