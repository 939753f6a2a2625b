"""Columns of a table as feature values: what training has seen decides how rows are read."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from perso.models.feature_columns import (
    FeatureColumn,
    FittedColumns,
    fit_columns,
    infer_columns,
)


def _column(kind, **settings):
    return FeatureColumn(column="c", kind=kind, **{"min_count": 1} | settings)


def _fit(cells, kind, **settings):
    return fit_columns(pa.table({"c": cells}), [_column(kind, **settings)])


def _dense(columns, cells):
    return columns.encode(pa.table({"c": cells})).csr.toarray()


def _row_tier(matrix):
    return [part.tolist() for part in np.split(matrix.value_E, matrix.indptr_N1[1:-1])]


def test_a_category_is_one_value_and_the_unseen_or_empty_is_none():
    columns = _fit(["tea", "mug", "tea"], "category")
    assert _dense(columns, ["tea", "mug", "clock", None]).tolist() == [
        [0, 1], [1, 0], [0, 0], [0, 0],
    ]  # fmt: skip


def test_values_in_too_few_rows_are_ignored():
    columns = _fit(["tea", "tea", "mug"], "category", min_count=2)
    assert columns.columns[0].values == ("tea",)
    tags = _fit([["a", "a", "a"], ["b"], ["b"]], "tags", min_count=2)
    assert tags.columns[0].values == ("b",)  # rows count, not repetitions


def test_tags_of_a_row_have_length_one_together():
    columns = _fit([["a", "b"], ["a"], None], "tags")
    root = np.float32(0.5**0.5)
    assert _dense(columns, [["a", "b"], ["b"], [], None, ["a", "z"]]).tolist() == [
        [root, root], [0, 1], [0, 0], [0, 0], [1, 0],
    ]  # fmt: skip


def test_prices_fall_into_tiers_of_equal_size():
    prices = np.arange(1.0, 81.0)
    columns = _fit(prices, "number")
    tiers = columns.encode(pa.table({"c": prices})).value_E
    assert np.bincount(tiers).tolist() == [10] * 8
    assert (np.diff(tiers) >= 0).all()


def test_prices_beyond_those_of_training_fall_into_the_outer_tiers():
    columns = _fit(np.arange(1.0, 81.0), "number")
    far = columns.encode(pa.table({"c": [-5.0, 1e9, None, float("nan")]}))
    assert _row_tier(far) == [[0], [7], [], []]


def test_equal_prices_share_a_tier():
    columns = _fit([5.0] * 60 + [9.0] * 40, "number")
    assert columns.columns[0].num_values == 2
    assert _row_tier(columns.encode(pa.table({"c": [5.0, 9.0]}))) == [[0], [1]]


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
    st.integers(2, 10),
)
def test_tiers_keep_the_order_of_numbers_and_none_is_empty(numbers, num_bins):
    columns = _fit(numbers, "number", num_bins=num_bins)
    tiers = columns.encode(pa.table({"c": sorted(numbers)})).value_E
    assert (np.diff(tiers) >= 0).all()
    assert set(tiers.tolist()) == set(range(columns.columns[0].num_values))


def test_words_weigh_as_in_scikit_learn():
    titles = ["Red tea pot", "red RED mug", "Glass mug, green!", "pot of tea"]
    new = ["red pot of glass", "tea tea pot", "unheard words"]
    theirs = TfidfVectorizer(token_pattern=r"[^\W_]{2,}").fit(titles)
    ours = _fit(titles, "text")
    assert list(ours.columns[0].values) == theirs.get_feature_names_out().tolist()
    np.testing.assert_allclose(_dense(ours, new), theirs.transform(new).toarray(), rtol=1e-6)


def test_of_many_words_the_most_frequent_stay():
    columns = _fit(["aa bb", "aa bb", "aa cc"], "text", max_words=2)
    assert columns.columns[0].values == ("aa", "bb")


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 3)])
def test_vectors_are_standardised_by_the_rows_of_training(kind):
    rng = np.random.default_rng(0)
    vectors = rng.normal([5, -2, 0], [3, 0.5, 0], (50, 3)).astype(np.float32)
    columns = _fit(pa.array(vectors.tolist(), kind), "vector")
    dense = _dense(columns, pa.array([*vectors.tolist(), None], kind))
    np.testing.assert_allclose(dense[:50].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(dense[:50].std(0), [3**-0.5, 3**-0.5, 0], atol=1e-5)
    assert not dense[50].any()  # no vector, no entries


def test_vectors_of_another_length_are_refused():
    columns = _fit([[1.0, 2.0], [3.0, 4.0]], "vector")
    with pytest.raises(ValueError, match="have 3 numbers, those of training 2"):
        _dense(columns, [[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match=r"\[1, 2\] numbers; give one length"):
        _fit([[1.0, 2.0], [3.0]], "vector")
    with pytest.raises(ValueError, match="not finite"):
        _fit([[1.0, float("nan")]], "vector")


def test_kinds_follow_from_arrow_types():
    table = pa.table(
        {
            "item_id": ["1"],
            "title": ["a b"],
            "brand": pa.array(["x"]).dictionary_encode(),
            "maker": ["y"],
            "price": [1.0],
            "stock": pa.array([3], pa.int32()),
            "tags": [["t"]],
            "embedding": pa.array([[0.0, 1.0]], pa.list_(pa.float32(), 2)),
            "fair_trade": [True],
            "currency": ["EUR"],
            "in_stock": [True],
            "added_at": pa.array([0], pa.timestamp("us")),
        }
    )
    assert {column.column: column.kind for column in infer_columns(table)} == {
        "title": "text",
        "brand": "category",
        "maker": "category",
        "price": "number",
        "stock": "number",
        "tags": "tags",
        "embedding": "vector",
        "fair_trade": "category",
    }


def test_inferred_columns_of_empty_columns_have_no_values():
    table = pa.table({"brand": pa.nulls(3, pa.string()), "price": pa.nulls(3, pa.float64())})
    matrix = fit_columns(table, infer_columns(table)).encode(table)
    assert (len(matrix), len(matrix.value_E)) == (3, 0)


def test_columns_lie_side_by_side_in_one_matrix():
    table = pa.table({"kind": ["a", "b", None], "none": pa.nulls(3, pa.string()), "n": [1, 2, 3]})
    specs = [
        FeatureColumn(column="kind", kind="category", min_count=1),
        FeatureColumn(column="none", kind="category", min_count=1),
        FeatureColumn(column="n", kind="number", num_bins=3),
    ]
    matrix = fit_columns(table, specs).encode(table)
    assert [matrix.span(name) for name in ("kind", "none", "n")] == [
        slice(0, 2), slice(2, 2), slice(2, 5),
    ]  # fmt: skip
    assert matrix.csr.toarray().tolist() == [[1, 0, 1, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert matrix.take(np.array([2, 0])).csr.toarray().tolist() == [
        [0, 0, 0, 0, 1],
        [1, 0, 1, 0, 0],
    ]


def test_saved_columns_read_rows_alike_and_are_plain_json(tmp_path):
    table = pa.table(
        {
            "title": ["röd tea pot", "tea mug", "mug"],
            "brand": ["x", "y", "x"],
            "price": [1.0, 2.0, 3.0],
            "tags": [["t"], ["t", "u"], None],
            "embedding": [[0.0, 1.0], [2.0, 0.5], [1.0, 1.0]],
        }
    )
    specs = [FeatureColumn(column=c.column, kind=c.kind, min_count=1) for c in infer_columns(table)]
    columns = fit_columns(table, specs)
    columns.save(tmp_path / "columns.json")
    json.loads((tmp_path / "columns.json").read_text(encoding="utf-8"))
    loaded = FittedColumns.load(tmp_path / "columns.json")
    assert loaded == columns
    assert (loaded.encode(table).csr != columns.encode(table).csr).nnz == 0


def test_a_fit_does_not_depend_on_the_order_of_rows():
    table = pa.table({"title": ["a1 b1", "b1 c1", "c1 a1"], "brand": ["x", "y", "x"]})
    specs = [FeatureColumn(column=c.column, kind=c.kind, min_count=1) for c in infer_columns(table)]
    assert fit_columns(table, specs) == fit_columns(table.take(pa.array([2, 0, 1])), specs)


def test_an_unknown_column_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"no column 'colour'.*\['kind', 'price'\]"):
        fit_columns(
            pa.table({"kind": ["a"], "price": [1.0]}),
            [FeatureColumn(column="colour", kind="category")],
        )


def test_a_column_named_twice_is_refused():
    twice = [_column("category"), _column("text")]
    with pytest.raises(ValueError, match=r"\['c'\] are named twice"):
        fit_columns(pa.table({"c": ["a"]}), twice)


@pytest.mark.parametrize(
    ("kind", "cells", "needed"),
    [
        ("number", ["a"], "a number a row, not string"),
        ("vector", [["a"]], "a list of numbers, not list"),
        ("tags", ["a"], "a list of texts, not string"),
        ("category", [["a"]], "one text a row, not list"),
    ],
)
def test_cells_that_do_not_fit_the_kind_are_refused(kind, cells, needed):
    with pytest.raises(ValueError, match=needed):
        _fit(cells, kind)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"column": ""}, "empty name"),
        ({"kind": "colour"}, "'colour'; give one of"),
        ({"min_count": 0}, "min_count of column 'c' is 0"),
        ({"num_bins": 1}, "num_bins of column 'c' is 1"),
        ({"max_words": 0}, "max_words of column 'c' is 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        FeatureColumn(**{"column": "c", "kind": "category"} | settings)


def test_a_config_is_read_without_torch():
    code = "import sys, perso.models.hybrid_config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
