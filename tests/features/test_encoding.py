"""Differential tests: our column-wise bytes against Feast's own row-wise conversion."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.dictionary import CREATED, EVENT_TIMESTAMP, VIEWS, Feature, View
from perso.features.encoding import encode, entity_key_messages, entity_keys
from perso.features.feast_import import import_feast
from perso.schema import TIMESTAMP

AT = datetime(2026, 3, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INSTANTS = st.datetimes(
    min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)
)
VALUES = {
    pa.string(): TEXT,
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    TIMESTAMP: INSTANTS,
    pa.list_(pa.string()): st.lists(TEXT, max_size=4),
    pa.list_(pa.float32()): st.lists(st.floats(width=32), max_size=4),
}
FEAST_TYPES = {
    pa.string(): "STRING",
    pa.int64(): "INT64",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOL",
    TIMESTAMP: "UNIX_TIMESTAMP",
    pa.list_(pa.string()): "STRING_LIST",
    pa.list_(pa.float32()): "FLOAT_LIST",
}


def a_view(kind):
    feature = Feature(name="value", type=kind, description="", unit="", window="", null="whatever")
    return View(name="a_view", entity="user_id", ttl_days=1, description="", features=(feature,))


def a_table(view, values, at=AT):
    columns = [
        pa.array([f"u{i}" for i in range(len(values))]),
        pa.array([at] * len(values), TIMESTAMP),
        pa.array([at] * len(values), TIMESTAMP),
        pa.array(values, view.features[0].type),
    ]
    return pa.table(columns, schema=view.schema)


def by_feast(kind, values):
    """What Feast makes of a column; floats are given as the numbers that the column holds."""
    import_feast()
    from feast import ValueType
    from feast.type_map import python_values_to_proto_values

    if pa.types.is_floating(kind):
        width = np.float32 if kind == pa.float32() else np.float64
        values = [None if v is None else width(v) for v in values]
    return python_values_to_proto_values(values, ValueType[FEAST_TYPES[kind]])


def test_every_type_of_the_dictionary_is_covered():
    assert {f.type for view in VIEWS.values() for f in view.features} == set(VALUES)


@pytest.mark.parametrize("kind", VALUES, ids=str)
def test_values_and_texts_are_feasts_own_to_the_byte(kind):
    import_feast()
    from feast.infra.online_stores.helpers import extract_text_and_num
    from feast.protos.feast.types.Value_pb2 import Value

    view = a_view(kind)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.none() | VALUES[kind], max_size=8))
    def check(values):
        encoded = encode(view, a_table(view, values))
        expected = by_feast(kind, values) if values else []
        for ours, theirs, value in zip(encoded.values["value"], expected, values, strict=True):
            if value is None:
                assert ours == b"" == Value().SerializeToString()
            else:
                assert ours == theirs.SerializeToString()
        for text, stored in zip(encoded.texts["value"], encoded.values["value"], strict=True):
            assert text == extract_text_and_num(Value.FromString(stored), False)[0]

    check()


@pytest.mark.parametrize("kind", VALUES, ids=str)
def test_a_column_in_chunks_or_a_slice_is_encoded_as_a_whole_one(kind):
    view = a_view(kind)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.none() | VALUES[kind], min_size=2, max_size=8), st.integers(0, 8))
    def check(values, cut):
        table = a_table(view, values)
        whole = encode(view, table).values
        halves = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
        assert encode(view, halves).values == whole
        assert encode(view, table.slice(1)).values["value"] == whole["value"][1:]
        (batch,) = table.combine_chunks().to_batches()
        assert encode(view, batch.slice(1)).values["value"] == whole["value"][1:]

    check()


@given(st.lists(TEXT, max_size=5))
def test_entity_keys_are_feasts_own_to_the_byte(ids):
    import_feast()
    from feast.infra.key_encoding_utils import serialize_entity_key

    expected = [serialize_entity_key(m, 3) for m in entity_key_messages("user_id", ids)]
    assert entity_keys("user_id", ids) == expected


@given(INSTANTS, INSTANTS)
def test_event_and_creation_times_are_kept_in_utc(event, created):
    view = a_view(pa.string())
    table = a_table(view, ["x", None])
    for name, at in ((EVENT_TIMESTAMP, event), (CREATED, created)):
        place = table.column_names.index(name)
        table = table.set_column(place, view.schema.field(name), pa.array([at] * 2, TIMESTAMP))
    encoded = encode(view, table)
    assert encoded.event_times == [event] * 2
    assert encoded.created == [created] * 2
    assert {at.utcoffset().total_seconds() for at in encoded.event_times} == {0}


def test_every_view_is_encoded_in_full(make_all):
    for name, table in make_all(AT, users=["ann", "bob"], items=["i1", "i2"]).items():
        view = VIEWS[name]
        encoded = encode(view, table)
        assert list(encoded.values) == list(encoded.texts) == view.feature_names
        assert len(encoded) == 2
        for feature in view.features:
            expected = by_feast(feature.type, table[feature.name].to_pylist())
            found = encoded.values[feature.name]
            assert found == [value.SerializeToString() for value in expected], feature.name


def test_rows_are_taken_by_place():
    view = a_view(pa.string())
    encoded = encode(view, a_table(view, ["a", "b", None]))
    taken = encoded.take([2, 0])
    assert taken.ids == ["u2", "u0"]
    assert taken.values["value"] == [encoded.values["value"][2], encoded.values["value"][0]]
    assert taken.texts["value"] == [None, "a"]
    assert len(taken.event_times) == len(taken.created) == len(taken) == 2
    assert encode(view, a_table(view, ["a"]), with_texts=False).take([0]).texts["value"] == []


def test_a_type_that_no_feature_has_is_refused():
    view = a_view(pa.date32())
    with pytest.raises(TypeError, match="date32"):
        encode(view, a_table(view, [None]))
