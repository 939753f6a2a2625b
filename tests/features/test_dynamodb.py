"""DynamoDB against moto's server: a store that only Feast's own writer reaches."""

from datetime import UTC, datetime

import pytest

from perso.dictionary import SERVICES
from perso.features.skew import check_skew
from perso.features.store import open_features


@pytest.fixture
def features(moto_address, workspace, monkeypatch):
    import httpx

    pytest.importorskip("aiobotocore", reason="feast[aws] is not installed")
    httpx.post(f"{moto_address}/moto-api/reset").raise_for_status()
    for variable, value in {
        "PERSO_FEATURE_STORE": "dynamodb",
        "PERSO_AWS_REGION": "eu-west-1",
        "PERSO_DYNAMODB_ENDPOINT": moto_address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(variable, value)
    store = open_features(workspace)
    store.apply()
    return store


def test_a_sync_is_read_back_by_us_and_by_feast_and_a_repeat_takes_the_newest(
    features, make_all, day
):
    people = [f"u{i}" for i in range(30)]
    for number, segment in ((1, "new"), (8, "loyal")):
        features.rows.write_rows(day(number), make_all(day(number), users=people, segment=segment))
        report = features.sync()
        assert report.num_rows == {
            view: 30 if view.startswith("user") else 1 for view in report.num_rows
        }
        rows = features.read_online([*people, "nobody"])
        assert rows.pop() is None
        assert {(row["segment"], row["event_timestamp"]) for row in rows} == {
            (segment, day(number))
        }
    assert check_skew(features, sample=20).is_clean
    (item,) = features.read_online(["i1"], "items_v1")
    assert list(item) == [*SERVICES["items_v1"].feature_names, "event_timestamp"]


def test_a_late_push_or_sync_never_replaces_newer_events(features, make_all, recent_rows, day):
    features.push_recent(recent_rows(day(3), ann="i3"))
    features.push_recent(recent_rows(day(2), ann="i2", bob="i2"))
    features.rows.write_rows(day(1), make_all(day(1), users=["ann", "bob", "cem"]))
    features.sync()
    ann, bob, cem = features.read_online(["ann", "bob", "cem"])
    assert (ann["last_item_id"], bob["last_item_id"]) == ("i3", "i2")
    assert ann["segment"] is not None
    assert cem["last_item_id"].startswith("last_item_id")
    assert cem["last_event_at"] < datetime(2026, 3, 1, tzinfo=UTC)
