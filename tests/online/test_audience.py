"""Whom lists are for: who is known, and when two audiences are the same."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from perso.data.groups import UserGroups
from perso.data.vocabulary import Vocabulary
from perso.dictionary import CREATED, EVENT_TIMESTAMP, VIEWS
from perso.features.store import open_features
from perso.online.audience import Audience, read_audience, select_users

USERS = Vocabulary(pa.array(["ann", "bob", "cem"]))
EVERYBODY = np.arange(3)
AS_OF = datetime(2026, 3, 1, tzinfo=UTC)


def audience(segments=("a", None, "b"), categories=(["x", "y"], None, ["z"])):
    return Audience.of(
        EVERYBODY,
        segments=UserGroups.from_names(segments),
        attributes=pa.table({"top_categories": pa.array(categories, pa.list_(pa.string()))}),
    )


def test_two_audiences_have_one_fingerprint_where_they_know_the_same():
    joined = pa.concat_tables([audience().attributes.slice(n, 1) for n in range(3)])
    again = Audience.of(
        EVERYBODY, segments=UserGroups.from_names(["a", None, "b"]), attributes=joined
    )
    assert again.fingerprint() == audience().fingerprint()
    padded = audience().rows(0, 3)
    assert padded.fingerprint() == audience().fingerprint()


@pytest.mark.parametrize(
    "other",
    [
        audience(segments=("a", "b", "b")),
        audience(segments=("a", None, "c")),
        audience(categories=(["xy"], None, ["z"])),
        audience(categories=(["x"], None, ["y", "z"])),
        audience(categories=(["x", "y"], [], ["z"])),
        audience().rows(0, 2),
    ],
)
def test_whatever_differs_shows_in_the_fingerprint(other):
    assert other.fingerprint() != audience().fingerprint()


def test_users_are_selected_once_and_in_order_and_strangers_are_counted():
    rows, num_unknown = select_users(USERS, ["cem", "ann", "zoe", "cem"])
    assert (rows.tolist(), num_unknown) == ([0, 2], 1)


def test_segments_are_those_of_the_feature_store(workspace, monkeypatch):
    monkeypatch.delenv("PERSO_FEATURE_STORE", raising=False)
    features = open_features(workspace)
    nobody = read_audience(features, USERS, EVERYBODY, as_of=AS_OF, with_attributes=True)
    assert (nobody.segment_of(0), nobody.attributes) == (None, None)
    features.apply()
    tables = {}
    for view in VIEWS.values():
        given = {view.entity: "bob", EVENT_TIMESTAMP: AS_OF, CREATED: AS_OF}
        row = {f.name: None if f.null else _some(f.type) for f in view.features}
        row |= {"segment": "loyal"} if "segment" in row else {}
        tables[view.name] = pa.Table.from_pylist([row | given], schema=view.schema)
    features.rows.write_rows(AS_OF, tables)
    known = read_audience(features, USERS, EVERYBODY, as_of=AS_OF, with_attributes=True)
    assert [known.segment_of(place) for place in range(3)] == [None, "loyal", None]
    assert len(known.attributes) == 3
    (bob,) = (read_audience(features, USERS, np.array([1]), as_of=AS_OF, with_attributes=False),)
    assert (bob.segment_of(0), bob.attributes) == ("loyal", None)


def _some(kind):
    if pa.types.is_timestamp(kind):
        return AS_OF
    if pa.types.is_list(kind):
        return []
    return "x" if pa.types.is_string(kind) else pa.scalar(1).cast(kind).as_py()
