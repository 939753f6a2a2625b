"""The nightly sync when things go wrong: killed, cut off, out of memory, fed a broken file."""

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

import perso.features.sync as sync_module
from perso.dictionary import SERVICES, VIEWS
from perso.errors import FeatureStoreError
from perso.features.store import open_features
from perso.features.sync import Freshness, SyncReport

PEOPLE = [f"u{i:03d}" for i in range(60)]

KILLED = """
import os, signal, sqlite3, sys
from functools import partial
from pathlib import Path
import redis.commands.core
from perso.features import postgres_writer, redis_writer, sqlite_writer, sync
from perso.features.store import open_features
from perso.workspace import Workspace

left = int(sys.argv[3])

def dying(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

class Connection(sqlite3.Connection):
    def execute(self, statement, *arguments):
        run = super().execute
        if statement.startswith("INSERT INTO main."):
            run = dying(run)
        return run(statement, *arguments)

sync.BATCH_SIZE = 10
if sys.argv[2] == "staging":
    sync.encode = dying(sync.encode)
else:
    redis_writer._USERS_PER_SCRIPT = 10
    redis.commands.core.Script.__call__ = dying(redis.commands.core.Script.__call__)
    writer = postgres_writer.PostgresWriter
    writer._switch = staticmethod(dying(writer._switch))
    sqlite_writer.sqlite3.connect = partial(sqlite3.connect, factory=Connection)
features = open_features(Workspace(Path(sys.argv[1])))
print("syncing", flush=True)
features.sync()
"""


def plain_reads(features):
    """What a plain Feast reader gets of everybody, column by column."""
    feast = features.feast
    found = {}
    for service in ("user_segments_v1", "recommender_v1"):
        answer = feast.get_online_features(
            feast.get_feature_service(service), {"user_id": PEOPLE}
        ).to_dict(include_event_timestamps=True)
        found |= answer
    return found


@pytest.fixture
def yesterday(any_features, make_all, day):
    """A store with a good sync, and newer rows on disk that wait."""
    any_features.rows.write_rows(day(1), make_all(day(1), users=PEOPLE, segment="yesterday"))
    any_features.sync()
    any_features.rows.write_rows(day(2), make_all(day(2), users=PEOPLE, segment="today"))
    return any_features


def leftovers(features, store_name):
    """What a load has staged and nobody reads."""
    if store_name == "local":
        folder = features._workspace.features
        return [path.name for path in folder.iterdir() if "staging" in path.name]
    if store_name == "redis":
        import redis

        client = redis.Redis.from_url(f"redis://{os.environ['PERSO_REDIS']}")
        return list(client.scan_iter(match="*_staging"))
    import psycopg

    names = ("host", "port", "dbname", "user")
    variables = ("HOST", "PORT", "DATABASE", "USER")
    given = {n: os.environ[f"PERSO_POSTGRES_{v}"] for n, v in zip(names, variables, strict=True)}
    with psycopg.connect(**given) as connection:
        found = connection.execute("SELECT relname FROM pg_class WHERE relname LIKE 'staged_%'")
        return [name for (name,) in found]


def staged_times_to_live():
    import redis

    client = redis.Redis.from_url(f"redis://{os.environ['PERSO_REDIS']}")
    return [client.ttl(key) for key in client.scan_iter(match="*_staging")]


def assert_a_repeat_finishes(features, store_name):
    assert features.sync().num_rows["user_rfm"] == len(PEOPLE)
    assert set(plain_reads(features)["segment"]) == {"today"}
    assert set(plain_reads(features)["cluster"]) == {"today"}
    deadline = time.monotonic() + 10  # Postgres notices a killed client a moment later
    while leftovers(features, store_name) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert leftovers(features, store_name) == []


@pytest.mark.parametrize(("moment", "after"), [("staging", 30), ("switching", 3)])
def test_a_killed_sync_leaves_the_values_of_yesterday_and_a_repeat_finishes(
    moment, after, yesterday, store_name, workspace
):
    before = plain_reads(yesterday)
    assert set(before["segment"]) == {"yesterday"}
    freshness = yesterday.freshness(datetime.now(UTC))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(workspace.root), moment, str(after)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (killed.returncode, killed.stdout) == (-9, "syncing\n"), killed.stderr[-2000:]
    after_kill = plain_reads(yesterday)
    if store_name == "redis" and moment == "switching":
        # Customer by customer: each is wholly of yesterday or wholly of today.
        moved = [segment == "today" for segment in after_kill["segment"]]
        assert 0 < sum(moved) < len(PEOPLE)
        stamps = [name for name in after_kill if name.endswith("__ts")]
        assert len(stamps) > 10
        yesterdays = before["segment__ts"][0]
        for name in set(stamps) - {"user_id__ts"}:
            assert [at > yesterdays for at in after_kill[name]] == moved, name
    else:
        assert after_kill == before
    if store_name == "redis":
        # What it staged goes by itself if nobody ever syncs again.
        assert staged_times_to_live()
        assert all(0 < seconds <= 24 * 3600 for seconds in staged_times_to_live())
    assert yesterday.freshness(datetime.now(UTC)).synced_at == freshness.synced_at
    assert_a_repeat_finishes(yesterday, store_name)


def test_a_broken_file_leaves_the_values_of_yesterday(yesterday, store_name, make_all, day):
    before = plain_reads(yesterday)
    folder = yesterday._workspace.features / "rows" / "as_of=20260302T000000Z"
    (part,) = (folder / "user_affinities").glob("part-*.parquet")
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(FeatureStoreError, match="cannot bring features online") as caught:
        yesterday.sync()
    assert "\n" not in str(caught.value)
    assert plain_reads(yesterday) == before
    assert leftovers(yesterday, store_name) == []
    yesterday.rows.write_rows(day(2), make_all(day(2), users=PEOPLE, segment="today"))
    assert_a_repeat_finishes(yesterday, store_name)


def at_batch(monkeypatch, number, do):
    """Calls ``do`` before the batch of this number is encoded."""
    real, count = sync_module.encode, iter(range(1_000_000))

    def encode(*arguments, **options):
        if next(count) == number:
            do()
        return real(*arguments, **options)

    monkeypatch.setattr(sync_module, "encode", encode)
    monkeypatch.setattr(sync_module, "BATCH_SIZE", 10)


def test_a_redis_that_runs_out_of_memory_keeps_the_values_of_yesterday(
    use_store, workspace, make_all, day, redis_port, monkeypatch
):
    import redis

    use_store("redis")
    features = open_features(workspace)
    features.apply()
    features.rows.write_rows(day(1), make_all(day(1), users=PEOPLE, segment="yesterday"))
    features.sync()
    before = plain_reads(features)
    features.rows.write_rows(day(2), make_all(day(2), users=PEOPLE, segment="today"))
    client = redis.Redis(port=redis_port)
    with monkeypatch.context() as patch:
        at_batch(patch, 30, lambda: client.config_set("maxmemory", 1))
        try:
            with pytest.raises(FeatureStoreError, match=r"maxmemory.*perso features sync"):
                features.sync()
        finally:
            client.config_set("maxmemory", 0)
    assert plain_reads(features) == before
    assert_a_repeat_finishes(features, "redis")


def test_a_postgres_that_drops_the_connection_keeps_the_values_of_yesterday(
    use_store, workspace, make_all, day, postgres_port, monkeypatch
):
    import psycopg

    use_store("postgres")
    features = open_features(workspace)
    features.apply()
    features.rows.write_rows(day(1), make_all(day(1), users=PEOPLE, segment="yesterday"))
    features.sync()
    before = plain_reads(features)
    features.rows.write_rows(day(2), make_all(day(2), users=PEOPLE, segment="today"))

    def drop():
        address = f"host=127.0.0.1 port={postgres_port} user=perso dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE state = 'idle in transaction'"
            )

    with monkeypatch.context() as patch:
        at_batch(patch, 30, drop)
        with pytest.raises(FeatureStoreError, match="perso features sync") as caught:
            features.sync()
    assert "\n" not in str(caught.value)
    assert plain_reads(features) == before
    assert_a_repeat_finishes(features, "postgres")


def test_a_push_during_a_sync_is_kept(yesterday, recent_rows, day, monkeypatch):
    pushed = recent_rows(day(3), u000="pushed")
    at_batch(monkeypatch, 30, lambda: threading.Thread(target=push).start())
    done = threading.Event()

    def push():
        yesterday.push_recent(pushed)
        done.set()

    yesterday.sync()
    assert done.wait(30)
    first, second = yesterday.read_online(["u000", "u001"])
    assert (first["last_item_id"], first["segment"]) == ("pushed", "today")
    assert second["last_item_id"] != "pushed"


# ---------------------------------------------------------------------------------- report


def test_the_report_says_what_came_online_and_how_old_it_was(features, make_all, make_rows, day):
    features.rows.write_rows(
        day(1), make_all(day(1), users=["ann", "bob"], items=["i1", "i2", "i3"])
    )
    features.rows.write_rows(day(2), {"user_rfm": make_rows("user_rfm", day(2), ann={})})
    report = features.sync()
    assert report.as_of == day(2)
    assert report.view_as_ofs == dict.fromkeys(VIEWS, day(1)) | {"user_rfm": day(2)}
    counts = {view: 2 if view.startswith("user") else 3 for view in VIEWS}
    assert report.num_rows == counts | {"user_rfm": 1}
    assert report.age == report.synced_at - day(2)
    assert report.rows_per_s > 0
    assert SyncReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    left = json.loads((features._workspace.features / "sync.json").read_text())
    assert left == report.to_dict()
    assert str(report).startswith(
        f"{sum(report.num_rows.values())} rows of 8 views as of 2026-03-02"
    )


def test_freshness_tells_age_and_rows_that_wait(features, make_all, day):
    never = features.freshness(day(1))
    assert never == Freshness(as_of=None, age=None, synced_at=None, newest_written=None)
    assert "perso features sync" in str(never)
    features.rows.write_rows(day(1), make_all(day(1), users=["ann"]))
    assert features.freshness(day(1)).newest_written == day(1)
    report = features.sync()
    fresh = features.freshness(day(1) + timedelta(hours=30))
    assert (fresh.as_of, fresh.age) == (day(1), timedelta(hours=30))
    assert fresh.synced_at == report.synced_at
    assert str(fresh) == "online values are as of 2026-03-01 00:00:00+00:00, 30.0 hours old"
    features.rows.write_rows(day(8), make_all(day(8), users=["ann"]))
    waiting = features.freshness(day(10))
    assert (waiting.as_of, waiting.newest_written) == (day(1), day(8))
    assert "9.0 days old; rows as of 2026-03-08 00:00:00+00:00 wait" in str(waiting)


def test_a_second_sync_at_the_same_time_is_refused(features, make_all, day, monkeypatch):
    features.rows.write_rows(day(1), make_all(day(1), users=PEOPLE))
    raised = []

    def another():
        with pytest.raises(FeatureStoreError, match="another sync is running") as caught:
            open_features(features._workspace).sync()
        raised.append(caught.value)

    at_batch(monkeypatch, 3, another)
    features.sync()
    assert len(raised) == 1
    assert features.sync().num_rows["user_rfm"] == len(PEOPLE)


def test_views_without_rows_are_left_alone(features, make_rows, day):
    features.rows.write_rows(day(1), {"item_profile": make_rows("item_profile", day(1), i1={})})
    report = features.sync()
    assert dict(report.num_rows) == {"item_profile": 1}
    (item,) = features.read_online(["i1"], "items_v1")
    assert item["item_views"] is None
    assert set(item) == {*SERVICES["items_v1"].feature_names, "event_timestamp"}


def test_rows_that_are_empty_bring_nothing_online(features, make_rows, day):
    features.rows.write_rows(day(1), {"user_rfm": make_rows("user_rfm", day(1))})
    assert dict(features.sync().num_rows) == {"user_rfm": 0}
    assert features.read_online(["ann"]) == [None]
