"""The check of online against offline values finds what differs and nothing else."""

import json
from datetime import timedelta

import pytest

from perso.dictionary import RECOMMENDER_V1, USER_SEGMENTS_V1
from perso.errors import FeatureStoreError
from perso.features.online_writer import open_writer
from perso.features.rows import FeatureRows
from perso.features.skew import check_skew
from perso.features.sync import sync_rows
from perso.workspace import Workspace

PEOPLE = [f"u{i:02d}" for i in range(20)]


@pytest.fixture
def synced(features, make_all, day):
    features.rows.write_rows(day(1), make_all(day(1), users=PEOPLE))
    features.sync()
    return features


def tamper(features, folder, as_of, table):
    """Bring other rows of the same instant online, past the files."""
    rows = FeatureRows(Workspace.open(folder))
    rows.write_rows(as_of, {"user_rfm": table})
    views = {view.name: view for view in features.feast.list_feature_views()}
    sync_rows(rows, open_writer(features.feast.config, views), folder)


def test_a_synced_store_is_clean_by_every_reader_and_field(any_features, make_all, day):
    any_features.rows.write_rows(day(1), make_all(day(1), users=PEOPLE))
    any_features.sync()
    report = check_skew(any_features, sample=1_000)
    assert report.is_clean, report
    assert report.num_users == len(PEOPLE)
    assert report.num_compared == {
        f"{service.name} by {reader}": len(PEOPLE) * len(service.feature_names)
        for service in (RECOMMENDER_V1, USER_SEGMENTS_V1)
        for reader in ("perso", "feast")
    }
    assert json.loads(json.dumps(report.to_dict()))["is_clean"] is True


def test_one_value_off_by_one_bit_is_found_and_named(synced, tmp_path, day):
    table = synced.rows.read_rows("user_rfm", day(1))
    rows = table.to_pylist()
    changed = next(row for row in rows if row["composite_score"])
    changed["composite_score"] = float(f"{changed['composite_score']:.7e}") * (1 + 2**-22)
    tamper(synced, tmp_path / "other", day(1), type(table).from_pylist(rows, schema=table.schema))
    report = check_skew(synced, sample=1_000)
    assert not report.is_clean
    assert {reader: dict(fields) for reader, fields in report.differing.items()} == {
        reader: {"composite_score": 1} for reader in report.num_compared
    }
    assert "composite_score: 1 customers, such as" in str(report)
    assert changed["user_id"] not in str(report), "a customer is named"


def test_a_customer_who_is_missing_online_is_found(synced, make_all, day):
    synced.rows.write_rows(day(1), make_all(day(1), users=[*PEOPLE, "missing"]))
    report = check_skew(synced, sample=1_000)
    assert report.differing["recommender_v1 by perso"]["segment"] == 1
    assert report.differing["user_segments_v1 by feast"]["segment"] == 1


def test_newer_events_that_were_pushed_are_counted_and_passed_over(synced, recent_rows, day):
    synced.push_recent(recent_rows(day(1) + timedelta(hours=1), u03="i9", u07="i9"))
    report = check_skew(synced, sample=1_000)
    assert report.is_clean, report
    assert report.num_pushed == 2


def test_the_sample_is_as_large_as_asked_and_the_seed_draws_it(synced):
    assert check_skew(synced, sample=5, seed=1).num_users == 5


def test_a_check_without_a_sync_or_a_sample_is_refused(features):
    with pytest.raises(FeatureStoreError, match="perso features sync"):
        check_skew(features, sample=5)
    with pytest.raises(ValueError, match="sample is 0; give 1 or more"):
        check_skew(features, sample=0)
