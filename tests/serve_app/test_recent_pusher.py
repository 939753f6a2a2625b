"""Recent events reach the feature store once and survive what can go wrong."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from perso.errors import FeatureStoreError
from perso.stream.event import Event
from perso.stream.event_log import EventLog
from serve_app import recent_pusher
from serve_app.recent_pusher import RecentPusher
from serve_app.telemetry import Telemetry

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def event(number, user_id="ann", **changes):
    fields = {
        "event_id": f"e{number}",
        "event_type": "view_item",
        "user_id": user_id,
        "item_id": f"i{number}",
        "timestamp": NOON + timedelta(minutes=number),
    }
    return Event(**{**fields, **changes})


class Store:
    """Keeps rows by user; fails on demand."""

    def __init__(self):
        self.rows = {}
        self.pushes = 0
        self.is_dead = False

    def read_online(self, ids):
        if self.is_dead:
            raise FeatureStoreError("dead")
        return [self.rows.get(user_id) for user_id in ids]

    def push_recent(self, rows):
        self.pushes += 1
        self.rows |= {row["user_id"]: row for row in rows.to_pylist()}
        return len(rows)


@pytest.fixture
def log(tmp_path):
    return EventLog(tmp_path / "log.sqlite")


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def start(log, store, tmp_path):
    """A pusher as a new process makes it."""
    offsets = tmp_path / "features" / "recent_events.offset"
    return lambda: RecentPusher(log, lambda: store, offsets, Telemetry())


def test_events_are_pushed_once(log, store, start):
    pusher = start()
    assert pusher.push_next() == 0
    log.append([event(1), event(2), event(3, user_id="bob")])
    assert pusher.push_next() == 3
    assert store.rows["ann"]["recent_item_ids"] == ["i2", "i1"]
    assert store.rows["bob"]["last_item_id"] == "i3"
    assert pusher.push_next() == 0
    assert store.pushes == 1


def test_a_restart_goes_on_where_it_was(log, store, start):
    log.append([event(1)])
    start().push_next()
    log.append([event(2)])
    assert start().push_next() == 1
    assert store.rows["ann"]["recent_item_ids"] == ["i2", "i1"]


def test_a_store_that_was_down_gets_the_same_events_again(log, store, start):
    log.append([event(1)])
    pusher = start()
    store.is_dead = True
    with pytest.raises(FeatureStoreError):
        pusher.push_next()
    store.is_dead = False
    assert pusher.push_next() == 1
    assert store.rows["ann"]["last_item_id"] == "i1"


def test_a_failure_is_told_once_counted_and_tried_again(log, store, start, monkeypatch, caplog):
    for pause in ("PAUSE_S", "PAUSE_AFTER_FAILURE_S"):
        monkeypatch.setattr(recent_pusher, pause, 0.001)
    failures = []
    pusher = start()
    monkeypatch.setattr(pusher._telemetry, "count_push_failure", lambda: failures.append(1))
    log.append([event(1)])
    store.is_dead = True

    async def scenario():
        running = asyncio.create_task(pusher.run())
        while len(failures) < 3:
            await asyncio.sleep(0.001)
        assert len(caplog.records) == 1
        store.is_dead = False
        while "ann" not in store.rows or len(caplog.records) < 2:
            await asyncio.sleep(0.001)
        running.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 20))
    assert "again" in caplog.records[1].message
    assert store.rows["ann"]["recent_item_ids"] == ["i1"]


def test_a_log_longer_than_one_push_is_taken_in_order(log, store, start, monkeypatch):
    monkeypatch.setattr(recent_pusher, "EVENTS_PER_PUSH", 2)
    log.append([event(n) for n in range(1, 6)])
    pusher = start()
    assert [pusher.push_next() for _ in range(4)] == [2, 2, 1, 0]
    assert store.rows["ann"]["recent_item_ids"] == ["i5", "i4", "i3", "i2", "i1"]


def test_events_of_nobody_are_passed_over_without_asking_the_store(log, store, start):
    log.append([event(1, user_id=None, session_id="s"), event(2, event_type="impression")])
    store.is_dead = True
    assert start().push_next() == 2


def test_a_spoilt_offset_is_an_error_not_a_replay(log, start, tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "recent_events.offset").write_text("soon")
    log.append([event(1)])
    with pytest.raises(OSError, match="holds no offset"):
        start().push_next()
