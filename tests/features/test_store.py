"""Reads and writes of the online store, over every store that runs here."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
import yaml

from perso.dictionary import SERVICES
from perso.errors import FeatureStoreError
from perso.features.online_writer import open_writer
from perso.features.rows import FeatureRows
from perso.features.store import open_features
from perso.features.sync import sync_rows
from perso.workspace import Workspace


def online(features, column, *ids, **options):
    return [row and row[column] for row in features.read_online(ids, **options)]


def whole_seconds(value):
    return value.replace(microsecond=0) if isinstance(value, datetime) else value


def expected_rows(tables, service, ids):
    """Per id the columns of a service straight from the tables that were written."""
    found = {}
    for view, names in service.views():
        for row in tables[view.name].to_pylist():
            values = {name: whole_seconds(row[name]) for name in names}
            found.setdefault(row[view.entity], {}).update(values)
    return [found[entity_id] for entity_id in ids]


def by_plain_feast(store, service, entity, ids):
    """What a team reads that only knows Feast."""
    columns = store.get_online_features(
        store.get_feature_service(service), {entity: list(ids)}
    ).to_dict()
    return [
        {name: whole_seconds(values[place]) for name, values in columns.items() if name != entity}
        for place in range(len(ids))
    ]


def sync_from(features, workspace, tables_by_instant):
    """A sync of other rows into the store of ``features``."""
    rows = FeatureRows(workspace)
    for as_of, tables in tables_by_instant.items():
        rows.write_rows(as_of, tables)
    views = {view.name: view for view in features.feast.list_feature_views()}
    return sync_rows(rows, open_writer(features.feast.config, views), workspace.features)


# ---------------------------------------------------------------------------------- sync


def test_what_was_written_is_what_is_read_online(any_features, make_all, day):
    people, goods = [f"u{i}" for i in range(12)], ["i1", "i2", "i3"]
    tables = make_all(day(1), users=people, items=goods)
    any_features.rows.write_rows(day(1), tables)
    any_features.sync()
    for service in SERVICES.values():
        ids = goods if service.name == "items_v1" else people
        read = any_features.read_online(ids, service.name)
        assert {row.pop("event_timestamp") for row in read} == {day(1)}
        assert read == expected_rows(tables, service, ids)
        assert [list(row) for row in read] == [service.feature_names] * len(ids)


def test_plain_feast_reads_the_same_of_every_column(any_features, make_all, day):
    people = [f"u{i}" for i in range(5)]
    any_features.rows.write_rows(day(1), make_all(day(1), users=people, items=["i1", "i2"]))
    any_features.sync()
    for service in SERVICES.values():
        entity, ids = (
            ("item_id", ["i2", "i1"]) if service.name == "items_v1" else ("user_id", people)
        )
        ours = any_features.read_online(ids, service.name)
        for row in ours:
            del row["event_timestamp"]
        theirs = by_plain_feast(any_features.feast, service.name, entity, ids)
        for row in theirs:
            for name, value in row.items():
                if isinstance(value, datetime):
                    row[name] = value.replace(tzinfo=value.tzinfo or UTC)
        assert theirs == ours


def test_a_sync_repeated_changes_nothing(any_features, make_all, day):
    any_features.rows.write_rows(day(1), make_all(day(1), users=["ann", "bob"]))
    first = any_features.sync()
    before = any_features.read_online(["ann", "bob"], "user_segments_v1")
    second = any_features.sync()
    assert any_features.read_online(["ann", "bob"], "user_segments_v1") == before
    assert (second.as_of, second.num_rows) == (first.as_of, first.num_rows)


def test_the_next_sync_brings_the_next_values_and_keeps_customers_it_lacks(
    any_features, make_all, day
):
    any_features.rows.write_rows(day(1), make_all(day(1), users=["ann", "old"], segment="new"))
    any_features.sync()
    any_features.rows.write_rows(day(8), make_all(day(8), users=["ann"], segment="loyal"))
    any_features.sync()
    assert online(any_features, "segment", "ann", "old") == ["loyal", "new"]
    assert online(any_features, "event_timestamp", "ann", "old") == [day(8), day(1)]


def test_rows_of_an_instant_written_again_go_online_with_the_next_sync(any_features, make_all, day):
    for segment in ("new", "loyal"):
        any_features.rows.write_rows(day(1), make_all(day(1), users=["ann"], segment=segment))
        any_features.sync()
        assert online(any_features, "segment", "ann") == [segment]


def test_an_older_instant_never_replaces_a_newer_one(any_features, make_all, day, tmp_path):
    any_features.rows.write_rows(day(9), make_all(day(9), users=["ann"], segment="loyal"))
    any_features.sync()
    older = make_all(day(1), users=["ann", "old"], segment="lost")
    sync_from(any_features, Workspace.open(tmp_path / "other"), {day(1): older})
    assert online(any_features, "segment", "ann", "old") == ["loyal", "lost"]
    assert online(any_features, "cluster", "ann", "old") == ["loyal", "lost"]
    feast_sees = by_plain_feast(any_features.feast, "recommender_v1", "user_id", ["ann"])
    assert feast_sees[0]["segment"] == "loyal"


def test_a_value_that_became_null_is_null_online(any_features, make_rows, day):
    for number, cluster in ((1, "c1"), (2, None)):
        table = make_rows("user_clusters", day(number), ann={"cluster": cluster})
        any_features.rows.write_rows(day(number), {"user_clusters": table})
        any_features.sync()
        assert online(any_features, "cluster", "ann") == [cluster]


def test_a_sync_stores_what_feasts_own_load_stores(features, make_all, day, workspace):
    """The same tables, byte by byte, from an empty store."""
    import sqlite3
    from contextlib import closing

    def stored():
        with closing(sqlite3.connect(workspace.features / "online.db")) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return {
                name: sorted(connection.execute(f'SELECT * FROM "{name}"'))
                for (name,) in names.fetchall()
            }

    features.rows.write_rows(day(1), make_all(day(1), users=["ann", "bob"], items=["i1", "i2"]))
    features.sync()
    ours = stored()
    with closing(sqlite3.connect(workspace.features / "online.db")) as connection:
        for name in ours:
            connection.execute(f'DELETE FROM "{name}"')
        connection.commit()
    features.feast.materialize(day(1) - timedelta(seconds=1), day(1) + timedelta(seconds=1))
    assert stored() == ours
    assert sum(map(len, ours.values())) > 100


# ---------------------------------------------------------------------------------- pushes


def test_a_push_is_read_at_once_and_survives_an_older_sync(
    any_features, make_all, recent_rows, day
):
    any_features.rows.write_rows(day(1), make_all(day(1), users=["ann", "bob"]))
    any_features.sync()
    pushed_at = day(1) + timedelta(hours=3)
    assert any_features.push_recent(recent_rows(pushed_at, ann="i9", new="i7")) == 2
    assert online(any_features, "last_item_id", "ann", "new") == ["i9", "i7"]
    any_features.sync()
    assert online(any_features, "last_item_id", "ann", "new") == ["i9", "i7"]
    assert online(any_features, "last_event_at", "ann") == [pushed_at]
    assert online(any_features, "event_timestamp", "ann", "new") == [day(1), None]


def test_a_newer_sync_replaces_a_push(any_features, make_rows, recent_rows, day):
    any_features.push_recent(recent_rows(day(1), ann="i9"))
    newer = make_rows("user_recent_events", day(2), ann={"last_item_id": "i1"})
    any_features.rows.write_rows(day(2), {"user_recent_events": newer})
    any_features.sync()
    assert online(any_features, "last_item_id", "ann") == ["i1"]


def test_a_late_push_never_replaces_a_newer_row(any_features, recent_rows, day):
    any_features.push_recent(recent_rows(day(2), ann="i2"))
    any_features.push_recent(recent_rows(day(1), ann="i1", bob="i1"))
    any_features.push_recent(recent_rows(day(2) - timedelta(seconds=1), ann="i0"))
    assert online(any_features, "last_item_id", "ann", "bob") == ["i2", "i1"]
    any_features.push_recent(recent_rows(day(2) + timedelta(seconds=1), ann="i3"))
    assert online(any_features, "last_item_id", "ann") == ["i3"]


def test_of_several_pushed_rows_of_one_customer_the_newest_wins(any_features, recent_rows, day):
    rows = pa.concat_tables([recent_rows(day(d), ann=f"i{d}", bob=f"i{d}") for d in (2, 3, 1)])
    assert any_features.push_recent(rows) == 2
    assert online(any_features, "last_item_id", "ann", "bob") == ["i3", "i3"]
    assert any_features.push_recent(rows.slice(0, 0)) == 0


def test_fractions_of_a_second_count_on_redis_and_postgres(
    any_features, store_name, recent_rows, day
):
    if store_name == "local":
        pytest.skip("SQLite keeps whole seconds")
    late, early = (day(1) + timedelta(microseconds=us) for us in (900, 100))
    any_features.push_recent(recent_rows(late, ann="late"))
    any_features.push_recent(recent_rows(early, ann="early"))
    assert online(any_features, "last_item_id", "ann") == ["late"]


def test_more_rows_than_one_round_trip_are_pushed(any_features, recent_rows, day):
    names = {f"u{i}": f"i{i}" for i in range(1_203)}
    assert any_features.push_recent(recent_rows(day(1), **names)) == 1_203
    asked = ["u0", "u999", "u1000", "u1202"]
    assert online(any_features, "last_item_id", *asked) == ["i0", "i999", "i1000", "i1202"]


def test_pushers_at_the_same_time_leave_the_newest_row(any_features, recent_rows, day):
    instants = [day(1) + timedelta(seconds=second) for second in range(40)]

    def push(second):
        any_features.push_recent(recent_rows(instants[second], ann=f"i{second}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(push, [*range(1, 40, 2), *range(38, -1, -2)]))
    assert online(any_features, "last_item_id", "ann") == ["i39"]


def test_rows_that_are_no_recent_events_are_refused(features, make_rows, recent_rows, day):
    with pytest.raises(ValueError, match="push rows of user_recent_events"):
        features.push_recent(make_rows("user_rfm", day(1), ann={}))
    other = make_rows("user_recent_events", day(1), ann={"last_event_at": day(2)})
    with pytest.raises(ValueError, match="event_timestamp differs from last_event_at"):
        features.push_recent(other)


# ---------------------------------------------------------------------------------- reads


def test_strangers_and_missing_views_are_told_apart(any_features, make_rows, day):
    rfm = make_rows("user_rfm", day(1), ann={"segment": "new"})
    any_features.rows.write_rows(day(1), {"user_rfm": rfm})
    any_features.sync()
    stranger, ann, again = any_features.read_online(["nobody", "ann", "ann"])
    assert stranger is None
    assert ann == again
    assert (ann["segment"], ann["cluster"], ann["last_item_id"]) == ("new", None, None)
    assert any_features.read_online([]) == []


def test_odd_ids_are_ids(any_features, make_rows, day):
    ids = ["", "Zoë", "a'b\"c;--", "x" * 300, "日本 \n", "0"]
    rfm = make_rows("user_rfm", day(1), **{odd: {"segment": f"s{i}"} for i, odd in enumerate(ids)})
    any_features.rows.write_rows(day(1), {"user_rfm": rfm})
    any_features.sync()
    assert online(any_features, "segment", *ids) == [f"s{i}" for i in range(len(ids))]


def test_a_view_older_than_asked_for_is_unknown(any_features, make_all, recent_rows, day):
    any_features.rows.write_rows(day(1), make_all(day(1), users=["ann", "bob"], segment="new"))
    any_features.sync()
    assert online(any_features, "segment", "ann", not_before=day(1)) == ["new"]
    later = day(1) + timedelta(seconds=1)
    assert any_features.read_online(["ann"], not_before=later) == [None]
    any_features.push_recent(recent_rows(day(2), ann="i9"))
    ann, bob = any_features.read_online(["ann", "bob"], not_before=later)
    assert bob is None
    assert (ann["segment"], ann["event_timestamp"], ann["last_item_id"]) == (None, None, "i9")


def test_another_process_would_see_a_sync_at_once(any_features, make_all, day, workspace):
    replica = open_features(workspace)
    assert replica.read_online(["ann"]) == [None]
    any_features.rows.write_rows(day(1), make_all(day(1), users=["ann"], segment="new"))
    any_features.sync()
    assert online(replica, "segment", "ann") == ["new"]


def test_threads_read_their_own_customers_while_syncs_run(any_features, make_all, day):
    names = [f"u{i:03d}" for i in range(60)]
    tables = make_all(day(1), users=names)
    any_features.rows.write_rows(day(1), tables)
    any_features.sync()
    service = SERVICES["recommender_v1"]

    def read(start):
        asked = names[start::7]
        for _ in range(8):
            rows = any_features.read_online(asked)
            for row in rows:
                del row["event_timestamp"]
            assert rows == expected_rows(tables, service, asked)

    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(read, i) for i in range(7)]
        pool.submit(any_features.sync).result()
        for done in reads:
            done.result()


def test_rows_go_online_whatever_the_time_zone_of_the_machine(
    any_features, make_all, day, monkeypatch
):
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        # The clocks there go forward on 8 March.
        any_features.rows.write_rows(day(9), make_all(day(9), users=["ann"]))
        any_features.sync()
        (row,) = any_features.read_online(["ann"])
    finally:
        monkeypatch.undo()
        time.tzset()
    assert row["event_timestamp"] == datetime(2026, 3, 9, tzinfo=UTC)
    assert row["last_event_at"].tzinfo is UTC


def test_other_teams_read_by_the_settings_that_apply_left(any_features, make_all, day, workspace):
    import os

    from feast import FeatureStore, RepoConfig

    any_features.rows.write_rows(day(1), make_all(day(1), users=["ann"], segment="champions"))
    any_features.sync()
    text = os.path.expandvars((workspace.features / "feature_store.yaml").read_text())
    plain = FeatureStore(config=RepoConfig(**yaml.safe_load(text)))
    (theirs,) = by_plain_feast(plain, "user_segments_v1", "user_id", ["ann"])
    assert theirs["segment"] == "champions"


# ---------------------------------------------------------------------------------- errors


def test_nothing_applied_or_written_is_said_with_its_cure(workspace, make_all, day, recent_rows):
    features = open_features(workspace)
    with pytest.raises(FeatureStoreError, match="perso segments run"):
        features.read_online(["ann"])
    with pytest.raises(FeatureStoreError, match="perso segments run"):
        features.read_historical(["ann"], as_of=day(1))
    with pytest.raises(FeatureStoreError, match="perso segments run"):
        features.sync()
    with pytest.raises(FeatureStoreError, match="perso features sync"):
        features.push_recent(recent_rows(day(1), ann="i1"))


def test_a_sync_before_anything_is_registered_says_so(workspace, make_all, day):
    features = open_features(workspace)
    features.rows.write_rows(day(1), make_all(day(1), users=["ann"]))
    with pytest.raises(FeatureStoreError, match=r"no feature is registered|register"):
        features.sync()


def test_an_unknown_service_is_named_with_those_there_are(features):
    with pytest.raises(ValueError, match="no feature service 'segments'; there are: user_segments"):
        features.read_online(["ann"], "segments")


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_reads_recover_when_the_server_dropped_every_connection(
    kind, use_store, workspace, make_all, day, request
):
    use_store(kind)
    features = open_features(workspace)
    features.apply()
    features.rows.write_rows(day(1), make_all(day(1), users=["ann"], segment="new"))
    features.sync()
    for _ in range(12):  # more often than a pool has connections
        assert online(features, "segment", "ann") == ["new"]
        drop_connections(kind, request.getfixturevalue(f"{kind}_port"))
        try:
            features.read_online(["ann"])
        except FeatureStoreError as error:
            assert "\n" not in str(error)


def drop_connections(kind, port):
    if kind == "redis":
        import redis

        redis.Redis(port=port).client_kill_filter(_type="normal", skipme=True)
        return
    import psycopg

    address = f"host=127.0.0.1 port={port} user=perso dbname=postgres"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


def test_a_redis_that_is_down_is_one_sentence(use_store, workspace, monkeypatch):
    use_store("redis")
    open_features(workspace).apply()
    monkeypatch.setenv("PERSO_REDIS", "127.0.0.1:1")
    with pytest.raises(FeatureStoreError, match="cannot read features online") as caught:
        open_features(workspace).read_online(["ann"])
    assert "\n" not in str(caught.value)


def test_a_postgres_that_is_down_is_one_sentence(use_store, workspace, monkeypatch):
    use_store("postgres")
    monkeypatch.setenv("PERSO_POSTGRES_PORT", "1")
    with pytest.raises(FeatureStoreError, match="cannot") as caught:
        open_features(workspace).apply()
    assert "\n" not in str(caught.value)
