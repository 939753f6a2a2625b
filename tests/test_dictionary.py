"""The dictionary of features: what its readers rely on."""

import re
from collections import Counter

import pyarrow as pa
import pytest

from perso.dictionary import (
    CREATED,
    EVENT_TIMESTAMP,
    RECOMMENDER_V1,
    SERVICES,
    USER_RFM,
    VIEWS,
    describe,
)


def test_a_feature_has_one_name_in_all_views():
    names = Counter(name for view in VIEWS.values() for name in view.feature_names)
    assert [name for name, count in names.items() if count > 1] == []


def test_every_feature_says_what_a_reader_asks():
    rows = describe()
    assert len(rows) == sum(len(view.features) for view in VIEWS.values())
    for row in rows:
        assert all(row[key] for key in ("name", "type", "unit", "window", "null", "owner")), row
        assert row["description"].endswith("."), row["name"]
        assert re.fullmatch(r"[a-z][a-z0-9_]*", row["name"])
        assert row["window"] in {"window", "6 months", "lifetime", "as of"}, row["name"]


def test_the_schema_allows_a_null_where_the_dictionary_gives_it_a_meaning():
    schema = USER_RFM.schema
    assert schema.names[:3] == ["user_id", EVENT_TIMESTAMP, CREATED]
    assert schema.field("recency_days").nullable
    assert not schema.field("segment").nullable
    for view in VIEWS.values():
        for feature in view.features:
            assert view.schema.field(feature.name).nullable == (feature.null is not None)
            is_list = pa.types.is_list(feature.type)
            assert not is_list or feature.type.value_type in {pa.string(), pa.float32()}


def test_a_service_is_versioned_and_of_one_entity():
    for service in SERVICES.values():
        assert re.search(r"_v\d+$", service.name)
        assert len({view.entity for view, _ in service.views()}) == 1
        for view, columns in service.views():
            assert set(columns) <= set(view.feature_names)


def test_a_column_is_told_with_the_services_that_give_it():
    by_name = {row["name"]: row for row in describe()}
    assert by_name["segment"]["services"] == ["user_segments_v1", "recommender_v1"]
    assert by_name["cluster_fit"]["services"] == ["user_segments_v1"]
    assert by_name["age_band"]["services"] == ["user_segments_v1"]
    assert "age_band" not in RECOMMENDER_V1.feature_names


def test_a_service_of_an_unknown_view_fails_at_once():
    from perso.dictionary import Service

    with pytest.raises(KeyError):
        Service(name="x_v1", description="", audience="", columns=(("nowhere", None),)).views()
