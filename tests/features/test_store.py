from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perso.errors import FeatureStoreError
from perso.features.store import open_features
from perso.schema import USER_RFM_SCHEMA


def online_segments(features, *user_ids, **options):
    rows = features.read_online(user_ids, **options)
    return [row and row["segment"] for row in rows]


def past_segments(features, *user_ids, as_of):
    return features.read_historical(user_ids, as_of=as_of)["segment"].to_pylist()


# ---------------------------------------------------------------------------------- writing


def test_an_instant_written_again_is_replaced_and_equal_rows_are_equal_bytes(
    features, rfm_rows, day
):
    rows = rfm_rows(day(1), ann="new", bob="lost")
    path = features.write_rfm(rows)
    assert path.parent.name == "as_of=20260301T000000Z"
    first = path.read_bytes()
    assert features.write_rfm(rows) == path
    assert path.read_bytes() == first
    features.write_rfm(rfm_rows(day(1), ann="loyal"))
    assert pq.read_table(path, partitioning=None)["segment"].to_pylist() == ["loyal"]
    assert [p.name for p in path.parent.iterdir()] == ["part-0.parquet"]


def test_written_instants_come_back_to_the_microsecond(features, rfm_rows, day):
    instants = [day(1), day(1) + timedelta(microseconds=7), day(2)]
    for instant in reversed(instants):
        features.write_rfm(rfm_rows(instant, ann="new"))
    assert features.written() == instants


def test_foreign_columns_and_mixed_instants_are_refused(features, rfm_rows, day):
    with pytest.raises(ValueError, match="USER_RFM_SCHEMA"):
        features.write_rfm(pa.table({"user_id": ["ann"]}))
    mixed = pa.concat_tables([rfm_rows(day(1), ann="new"), rfm_rows(day(2), ann="new")])
    with pytest.raises(ValueError, match="2 event timestamps"):
        features.write_rfm(mixed)
    with pytest.raises(ValueError, match="0 event timestamps"):
        features.write_rfm(USER_RFM_SCHEMA.empty_table())


# ---------------------------------------------------------------------------------- online


def test_an_online_row_is_the_written_row(features, rfm_rows, day):
    rows = rfm_rows(day(1), ann="new", bob="browsers")
    features.write_rfm(rows)
    features.materialize(day(1))
    bob, stranger, ann = features.read_online(["bob", "nobody", "ann"])
    assert stranger is None
    expected = [{k: v for k, v in row.items() if k != "created"} for row in rows.to_pylist()]
    assert [ann | {"user_id": "ann"}, bob | {"user_id": "bob"}] == expected
    assert features.read_online([]) == []


def test_a_row_older_than_asked_for_is_unknown(features, rfm_rows, day):
    features.write_rfm(rfm_rows(day(1), ann="new"))
    features.materialize(day(1))
    assert online_segments(features, "ann", not_before=day(1)) == ["new"]
    assert online_segments(features, "ann", not_before=day(1) + timedelta(seconds=1)) == [None]


def test_an_older_instant_loaded_later_puts_no_old_value_online(features, rfm_rows, day):
    features.write_rfm(rfm_rows(day(1), ann="new", old="lost"))
    features.write_rfm(rfm_rows(day(9), ann="loyal"))
    features.materialize(day(9))
    features.materialize(day(1))
    assert online_segments(features, "ann", "old") == ["loyal", "lost"]


def test_a_load_repeated_changes_nothing(features, rfm_rows, day):
    features.write_rfm(rfm_rows(day(1), ann="new"))
    features.materialize(day(1))
    before = features.read_online(["ann"])
    features.materialize(day(1))
    assert features.read_online(["ann"]) == before


def test_replaced_rows_go_online_with_the_next_load(features, rfm_rows, day):
    for segment in ("new", "loyal"):
        features.write_rfm(rfm_rows(day(1), ann=segment))
        features.materialize(day(1))
        assert online_segments(features, "ann") == [segment]


def test_another_process_sees_a_load_at_once(features, rfm_rows, day, workspace):
    replica = open_features(workspace)
    assert online_segments(replica, "ann") == [None]
    features.write_rfm(rfm_rows(day(1), ann="new"))
    features.materialize(day(1))
    assert online_segments(replica, "ann") == ["new"]


def test_threads_read_their_own_users_while_a_load_runs(features, rfm_rows, day):
    names = {f"user{i:03d}": f"segment{i:03d}" for i in range(200)}
    features.write_rfm(rfm_rows(day(1), **names))
    features.materialize(day(1))

    def read(start):
        asked = list(names)[start::7]
        return all(
            online_segments(features, *asked) == [names[user] for user in asked] for _ in range(20)
        )

    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(read, i) for i in range(7)]
        pool.submit(features.materialize, day(1)).result()
        assert all(done.result() for done in reads)


def test_other_teams_read_the_same_values_by_their_own_service(features, rfm_rows, day, workspace):
    import yaml
    from feast import FeatureStore, RepoConfig

    features.write_rfm(rfm_rows(day(1), ann="champions"))
    features.materialize(day(1))
    text = (workspace.features / "feature_store.yaml").read_text()
    plain = FeatureStore(config=RepoConfig(**yaml.safe_load(text)))
    found = plain.get_online_features(
        plain.get_feature_service("user_segments_v1"), {"user_id": ["ann"]}
    ).to_dict()
    (ours,) = features.read_online(["ann"])
    assert {name: values[0] for name, values in found.items()} == {
        "user_id": "ann",
        **{name: value for name, value in ours.items() if name != "event_timestamp"},
    }


# ---------------------------------------------------------------------------------- past


def test_offline_and_online_agree_on_the_newest_rows(features, rfm_rows, day):
    features.write_rfm(rfm_rows(day(1), ann="new", bob="lost", cem="browsers"))
    features.write_rfm(rfm_rows(day(2), ann="loyal", bob="lost"))
    features.materialize(day(1))
    asked = ["cem", "nobody", "ann", "bob"]
    past = features.read_historical(asked, as_of=day(2)).to_pylist()
    for user_id, then, now in zip(asked, past, features.read_online(asked), strict=True):
        known = {"event_timestamp": None} if now is None else now
        expected = dict.fromkeys(then) | known | {"user_id": user_id}
        del expected["event_timestamp"]
        assert then == expected


def test_the_past_is_read_as_it_was_known_then(features, rfm_rows, day):
    features.write_rfm(rfm_rows(day(1), ann="new", bob="lost"))
    features.write_rfm(rfm_rows(day(10), ann="loyal"))
    assert past_segments(features, "ann", "bob", as_of=day(9)) == ["new", "lost"]
    assert past_segments(features, "ann", "bob", as_of=day(10)) == ["loyal", "lost"]
    just_before = day(10) - timedelta(microseconds=1)
    assert past_segments(features, "ann", as_of=just_before) == ["new"]
    assert past_segments(features, "ann", as_of=day(1) - timedelta(days=1)) == [None]


def test_rows_that_became_known_later_do_not_leak_into_the_past(features, rfm_rows, day):
    """A correction of day 5 computed on day 20: training for day 6 must not see it."""
    features.write_rfm(rfm_rows(day(4), ann="new"))
    features.write_rfm(rfm_rows(day(5), created=day(20), ann="champions"))
    assert past_segments(features, "ann", as_of=day(6)) == ["new"]
    assert past_segments(features, "ann", as_of=day(20)) == ["champions"]


def test_a_replay_of_a_past_cut_is_seen_at_that_cut(features, rfm_rows, day):
    """Computed today for a past instant: created is the instant, so training can use it."""
    features.write_rfm(rfm_rows(day(5), created=day(5), ann="loyal"))
    assert past_segments(features, "ann", as_of=day(5)) == ["loyal"]


def test_rows_older_than_the_time_to_live_are_not_believed(features, rfm_rows, day):
    features.write_rfm(rfm_rows(day(1), ann="new"))
    assert past_segments(features, "ann", as_of=day(1) + timedelta(days=365)) == ["new"]
    assert past_segments(features, "ann", as_of=day(1) + timedelta(days=366)) == [None]


def test_rows_come_back_in_the_order_asked_with_repeats(features, rfm_rows, day):
    features.write_rfm(rfm_rows(day(1), ann="new", bob="lost"))
    found = features.read_historical(["bob", "nobody", "ann", "bob"], as_of=day(2))
    assert found["user_id"].to_pylist() == ["bob", "nobody", "ann", "bob"]
    assert found["segment"].to_pylist() == ["lost", None, "new", "lost"]
    empty = features.read_historical([], as_of=day(2))
    assert empty.schema == found.schema
    assert len(empty) == 0


# ---------------------------------------------------------------------------------- errors


def test_nothing_applied_or_written_is_said_with_its_cure(workspace, rfm_rows, day):
    features = open_features(workspace)
    for read in (
        lambda: features.read_online(["ann"]),
        lambda: features.read_historical(["ann"], as_of=day(1)),
        lambda: features.materialize(day(1)),
    ):
        with pytest.raises(FeatureStoreError, match="perso segments run"):
            read()
    assert not workspace.root.exists(), "a read made folders"
    features.write_rfm(rfm_rows(day(1), ann="new"))
    with pytest.raises(FeatureStoreError, match="perso segments run"):
        features.read_online(["ann"])


def test_loading_an_instant_nobody_wrote_names_those_written(features, rfm_rows, day):
    features.write_rfm(rfm_rows(day(1), ann="new"))
    with pytest.raises(FeatureStoreError, match="Written: 2026-03-01"):
        features.materialize(day(2))


def test_a_naive_instant_is_refused(features):
    with pytest.raises(ValueError, match="no time zone"):
        features.read_historical(["ann"], as_of=datetime(2026, 3, 1))


def test_rows_go_online_whatever_the_time_zone_of_the_machine(features, rfm_rows, day, monkeypatch):
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        features.write_rfm(rfm_rows(day(9), ann="new"))
        features.materialize(day(9))
        (row,) = features.read_online(["ann"])
    finally:
        monkeypatch.undo()
        time.tzset()
    assert row["event_timestamp"] == datetime(2026, 3, 9, tzinfo=UTC)
