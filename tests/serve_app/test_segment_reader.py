"""Segments at request time: cached, bounded in time, forgiving."""

import asyncio
import threading

import pytest

from perso.errors import FeatureStoreError
from serve_app.segment_reader import SegmentReader, SegmentReaderSpec


class Store:
    """Counts its reads; fails or hangs on demand."""

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
        return [None if u == "stranger" else {"segment": f"of {u}"} for u in user_ids]


def reader_of(store, **spec):
    return SegmentReader(lambda: store, spec=SegmentReaderSpec(**spec))


async def outcome_of(reader, user_id):
    try:
        return await reader.read(user_id)
    except FeatureStoreError:
        return "failed"


def test_a_row_is_asked_for_once_within_its_time_to_live():
    async def scenario():
        store = Store()
        reader = reader_of(store, ttl_s=60.0)
        for _ in range(3):
            assert await reader.read("ann") == {"segment": "of ann"}
            assert await reader.read("stranger") is None
        assert store.reads == ["ann", "stranger"]

    asyncio.run(scenario())


def test_an_expired_row_is_asked_for_again():
    async def scenario():
        store = Store()
        reader = reader_of(store, ttl_s=0.01)
        await reader.read("ann")
        await asyncio.sleep(0.02)
        await reader.read("ann")
        assert store.reads == ["ann", "ann"]

    asyncio.run(scenario())


def test_a_store_that_failed_is_left_alone_then_asked_again(caplog):
    async def scenario():
        store = Store()
        store.is_dead = True
        reader = reader_of(store, retry_after_s=0.05)
        assert [await outcome_of(reader, f"u{n}") for n in range(5)] == ["failed"] * 5
        assert store.reads == ["u0"]
        store.is_dead = False
        await asyncio.sleep(0.06)
        assert await outcome_of(reader, "u1") == {"segment": "of u1"}

    asyncio.run(scenario())
    assert [record.message[:30] for record in caplog.records] == [
        "answers do without segments: d",
        "the feature store answers agai",
    ]


def test_a_row_that_was_read_outlives_the_store():
    async def scenario():
        store = Store()
        reader = reader_of(store, ttl_s=0.01)
        await reader.read("ann")
        await reader.read("stranger")
        store.is_dead = True
        await asyncio.sleep(0.02)
        assert await outcome_of(reader, "ann") == {"segment": "of ann"}
        assert await outcome_of(reader, "stranger") is None
        assert await outcome_of(reader, "bob") == "failed"

    asyncio.run(scenario())


def test_a_store_that_hangs_does_not_hold_up_the_answer():
    async def scenario():
        store = Store()
        store.gate.clear()
        reader = reader_of(store, timeout_s=0.05)
        started = asyncio.get_running_loop().time()
        assert await outcome_of(reader, "ann") == "failed"
        assert await outcome_of(reader, "bob") == "failed"
        assert asyncio.get_running_loop().time() - started < 1.0
        store.gate.set()

    asyncio.run(scenario())


def test_the_store_is_opened_once_and_again_only_after_a_failure():
    opened = []

    def open_store():
        opened.append(1)
        if len(opened) == 1:
            raise FeatureStoreError("not there yet")
        return Store()

    async def scenario():
        reader = SegmentReader(open_store)
        await reader.warm()
        assert await outcome_of(reader, "ann") == {"segment": "of ann"}
        assert await outcome_of(reader, "bob") == {"segment": "of bob"}
        assert len(opened) == 2

    asyncio.run(scenario())


def test_no_more_rows_are_kept_than_allowed():
    async def scenario():
        store = Store()
        reader = reader_of(store, max_users=2)
        for user_id in ["a", "b", "c", "b", "c", "a"]:
            await reader.read(user_id)
        assert store.reads == ["a", "b", "c", "a"]

    asyncio.run(scenario())


def test_a_wrong_spec_is_refused():
    with pytest.raises(ValueError, match="timeout_s"):
        SegmentReaderSpec(timeout_s=0.0)
