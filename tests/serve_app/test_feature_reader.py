"""Features at request time: cached, bounded in time, forgiving."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from perso.errors import FeatureStoreError
from serve_app.feature_reader import FeatureReader, FeatureReaderSpec

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Store:
    """Counts its reads; fails or hangs on demand. Segments are a day old, Olga's 15."""

    def __init__(self):
        self.reads = []
        self.is_dead = False
        self.gate = threading.Event()
        self.gate.set()

    def read_online(self, user_ids):
        self.reads += user_ids
        self.gate.wait(timeout=10)
        if self.is_dead:
            raise FeatureStoreError("dead")
        return [self.row(user_id) for user_id in user_ids]

    def row(self, user_id):
        if user_id == "stranger":
            return None
        if user_id == "newcomer":
            return {"segment": None, "event_timestamp": None, "last_item_id": "mug"}
        age = timedelta(days=15 if user_id == "olga" else 1)
        return {"segment": f"of {user_id}", "event_timestamp": NOW - age}


def reader_of(store, **spec):
    """Patient unless told otherwise: how busy the machine is must not decide a test."""
    return FeatureReader(lambda: store, spec=FeatureReaderSpec(**{"budget_ms": 1e4, **spec}))


async def read(reader, user_id, *, now=NOW):
    """The segment (None without a row) and how the read went."""
    found = await reader.read(user_id, now=now)
    return (None if found.row is None else found.row["segment"]), found.outcome


def test_a_row_is_asked_for_once_within_its_time_to_live():
    async def scenario():
        store = Store()
        reader = reader_of(store, ttl_s=60.0)
        assert await read(reader, "ann") == ("of ann", "fresh")
        assert await read(reader, "ann") == ("of ann", "cached")
        assert [await read(reader, "stranger") for _ in range(2)] == [(None, "unknown")] * 2
        assert store.reads == ["ann", "stranger"]

    asyncio.run(scenario())


def test_an_old_segment_is_given_and_called_stale():
    async def scenario():
        reader = reader_of(Store(), max_age_days=15)
        assert await read(reader, "olga") == ("of olga", "fresh")  # to the minute
        later = NOW + timedelta(minutes=1)
        assert await read(reader, "olga", now=later) == ("of olga", "stale")
        assert await read(reader, "ann", now=later) == ("of ann", "fresh")
        assert not (await reader.read("olga", now=later)).is_degraded
        never = reader_of(Store(), max_age_days=float("inf"))
        assert await read(never, "olga", now=NOW + timedelta(days=9999)) == ("of olga", "fresh")

    asyncio.run(scenario())


def test_who_has_recent_events_but_no_segment_is_unknown_with_a_row():
    async def scenario():
        reader = reader_of(Store())
        for _ in range(2):
            found = await reader.read("newcomer", now=NOW)
            assert (found.outcome, found.row["last_item_id"]) == ("unknown", "mug")
            assert not found.is_degraded

    asyncio.run(scenario())


def test_an_expired_row_is_asked_for_again():
    async def scenario():
        store = Store()
        reader = reader_of(store, ttl_s=0.01)
        await read(reader, "ann")
        await asyncio.sleep(0.02)
        assert await read(reader, "ann") == ("of ann", "fresh")
        assert store.reads == ["ann", "ann"]

    asyncio.run(scenario())


def test_a_store_that_failed_is_left_alone_then_asked_again(caplog):
    async def scenario():
        store = Store()
        store.is_dead = True
        reader = reader_of(store, retry_after_s=0.05)
        assert [await read(reader, f"u{n}") for n in range(5)] == [(None, "down")] * 5
        assert store.reads == ["u0"]
        store.is_dead = False
        await asyncio.sleep(0.06)
        assert await read(reader, "u1") == ("of u1", "fresh")

    asyncio.run(scenario())
    assert [record.message[:30] for record in caplog.records] == [
        "answers do without features: d",
        "the feature store answers agai",
    ]


def test_a_row_that_was_read_outlives_the_store():
    async def scenario():
        store = Store()
        reader = reader_of(store, ttl_s=0.01)
        await read(reader, "ann")
        await read(reader, "stranger")
        store.is_dead = True
        await asyncio.sleep(0.02)
        assert await read(reader, "ann") == ("of ann", "kept")
        assert await read(reader, "stranger") == (None, "kept")
        assert await read(reader, "bob") == (None, "down")
        assert (await reader.read("ann", now=NOW)).is_degraded

    asyncio.run(scenario())


def test_a_store_that_hangs_does_not_hold_up_the_answer():
    async def scenario():
        store = Store()
        store.gate.clear()
        reader = reader_of(store, budget_ms=50)
        started = asyncio.get_running_loop().time()
        assert await read(reader, "ann") == (None, "slow")
        assert await read(reader, "bob") == (None, "slow")  # left alone for a while
        assert store.reads == ["ann"]
        assert asyncio.get_running_loop().time() - started < 1.0
        store.gate.set()

    asyncio.run(scenario())


def test_an_answer_that_comes_late_is_kept_and_opens_the_store_again(caplog):
    async def scenario():
        store = Store()
        store.gate.clear()
        reader = reader_of(store, budget_ms=50, retry_after_s=1000)
        assert await read(reader, "ann") == (None, "slow")
        store.gate.set()
        while await read(reader, "ann") != ("of ann", "cached"):
            await asyncio.sleep(0.01)
        assert await read(reader, "bob") == ("of bob", "fresh")
        assert store.reads == ["ann", "bob"]

    asyncio.run(asyncio.wait_for(scenario(), 10))
    assert len(caplog.records) == 2  # slow, then well again


def test_one_read_at_a_time_finds_out_whether_a_slow_store_answers_again():
    async def scenario():
        store = Store()
        store.gate.clear()
        reader = reader_of(store, budget_ms=50, retry_after_s=0.1)
        assert await read(reader, "ann") == (None, "slow")
        await asyncio.sleep(0.1)
        many = await asyncio.gather(*(read(reader, f"u{n}") for n in range(100)))
        assert set(many) == {(None, "slow")}
        store.gate.set()
        await asyncio.sleep(0.1)
        assert store.reads == ["ann", "u0"]  # nobody had queued up behind the store that hung

    asyncio.run(scenario())


def test_an_error_that_comes_late_opens_nothing():
    async def scenario():
        store = Store()
        store.gate.clear()
        store.is_dead = True
        reader = reader_of(store, budget_ms=50, retry_after_s=1000)
        assert await read(reader, "ann") == (None, "slow")
        store.gate.set()
        await asyncio.sleep(0.1)
        assert await read(reader, "ann") == (None, "slow")
        assert store.reads == ["ann"]

    asyncio.run(scenario())


def test_the_store_is_opened_once_and_again_only_after_a_failure():
    opened = []

    def open_store():
        opened.append(1)
        if len(opened) == 1:
            raise FeatureStoreError("not there yet")
        return Store()

    async def scenario():
        reader = FeatureReader(open_store, spec=FeatureReaderSpec(budget_ms=1e4))
        await reader.warm()
        assert await read(reader, "ann") == ("of ann", "fresh")
        assert await read(reader, "bob") == ("of bob", "fresh")
        assert len(opened) == 2

    asyncio.run(scenario())


def test_no_more_rows_are_kept_than_allowed():
    async def scenario():
        store = Store()
        reader = reader_of(store, max_users=2)
        for user_id in ["a", "b", "c", "b", "c", "a"]:
            await read(reader, user_id)
        assert store.reads == ["a", "b", "c", "a"]

    asyncio.run(scenario())


def test_a_wrong_spec_is_refused():
    with pytest.raises(ValueError, match="budget_ms"):
        FeatureReaderSpec(budget_ms=0.0)
