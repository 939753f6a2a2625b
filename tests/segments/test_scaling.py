import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.segments.cluster_config import ClusterSpec
from perso.segments.scaling import RobustScale


def spec_of(*features, logs=(), winsor=(0.0, 1.0)):
    return ClusterSpec(features=features, log_features=logs, winsor=winsor)


def test_the_median_is_0_and_a_usual_deviation_is_1():
    values = np.random.default_rng(0).normal(50.0, 4.0, 20_001)
    table = pa.table({"a": values})
    scale = RobustScale.fit(table, spec_of("a"))
    scaled = scale.transform(table)[:, 0]
    assert np.median(scaled) == pytest.approx(0.0, abs=1e-12)
    assert scaled.std() == pytest.approx(1.0, abs=0.03)


def test_counts_are_taken_on_a_logarithmic_scale_and_come_back():
    table = pa.table({"a": [0.0, 1.0, 3.0, 7.0, 15.0]})  # log1p: 0 to 4, times log 2
    scale = RobustScale.fit(table, spec_of("a", logs=("a",)))
    scaled = scale.transform(table)
    assert np.diff(scaled[:, 0]) == pytest.approx([scaled[-1, 0] / 2] * 4)
    assert scale.restore(scaled)[:, 0] == pytest.approx([0.0, 1.0, 3.0, 7.0, 15.0])


def test_values_are_cut_off_at_the_quantiles():
    table = pa.table({"a": [*range(100), 1_000_000]})
    scale = RobustScale.fit(table, spec_of("a", winsor=(0.01, 0.99)))
    far, rim = scale.transform(pa.table({"a": [1e12, 99.0]}))[:, 0]
    assert far == rim
    assert (
        scale.transform(pa.table({"a": [-1e12, 1.0]}))[:, 0].tolist()
        == [pytest.approx(-rim, rel=0.05)] * 2
    )


def test_a_share_that_is_0_for_most_does_not_make_giants_of_the_others():
    table = pa.table({"a": [0.0] * 90 + [1.0] * 10})
    scaled = RobustScale.fit(table, spec_of("a")).transform(table)[:, 0]
    assert scaled.min() == 0.0  # the median
    assert scaled.max() == pytest.approx(1 / 0.3)  # the standard deviation of the shares


def test_what_is_unknown_is_the_median():
    table = pa.table({"a": [1.0, 2.0, 9.0], "b": [3.0, 4.0, 8.0]})
    scale = RobustScale.fit(table, spec_of("a", "b"))
    odd = pa.table({"a": pa.array([None, float("nan")], pa.float64())})  # and no b at all
    assert scale.transform(odd).tolist() == [[0.0, 0.0]] * 2
    assert scale.restore(np.zeros((1, 2))).tolist() == [[2.0, 4.0]]


@pytest.mark.parametrize("constant", [0.1, 7.0, -3e-9, 123_456_789.123])
def test_what_says_nothing_is_left_out(constant):
    table = pa.table(
        {
            "same": [constant] * 1001,
            "unknown": pa.nulls(1001, pa.float64()),
            "nan": [float("nan")] * 1001,
            "said": [float(n) for n in range(1001)],
        }
    )
    scale = RobustScale.fit(table, spec_of("same", "unknown", "nan", "absent", "said"))
    assert scale.features == ("said",)


def test_a_tiny_unit_is_no_constant():
    scale = RobustScale.fit(pa.table({"a": [0.0, 1e-6, 2e-6, 5e-6]}), spec_of("a"))
    assert scale.features == ("a",)


def test_nothing_that_tells_customers_apart_is_an_error():
    with pytest.raises(ValueError, match="none of the features"):
        RobustScale.fit(pa.table({"a": [1.0, 1.0]}), spec_of("a"))


@pytest.mark.parametrize("values", [["x", "y"], [True, False], [[1.0], [2.0]]])
def test_a_feature_that_is_no_number_is_an_error(values):
    with pytest.raises(ValueError, match=r"'a' is .*no number"):
        RobustScale.fit(pa.table({"a": values}), spec_of("a"))
    scale = RobustScale.fit(pa.table({"a": [1.0, 2.0]}), spec_of("a"))
    with pytest.raises(ValueError, match=r"'a' is .*no number"):
        scale.transform(pa.table({"a": values}))


def test_whole_numbers_and_chunks_are_read_as_numbers():
    whole, parts = pa.table({"a": [1, 2, None, 9]}), pa.chunked_array([[1.0], [2.0, None, 9.0]])
    scale = RobustScale.fit(whole, spec_of("a"))
    assert np.array_equal(scale.transform(whole), scale.transform(pa.table({"a": parts})))


_ROWS = st.lists(
    st.one_of(st.none(), st.floats(0, 1e6, allow_nan=False)), min_size=3, max_size=60
).filter(lambda rows: len({row for row in rows if row is not None}) > 1)


@settings(max_examples=60, deadline=None)
@given(rows=_ROWS, seed=st.integers(0, 99), is_log=st.booleans())
def test_the_order_of_rows_changes_no_bit_of_a_scale(rows, seed, is_log):
    shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    spec = spec_of("a", "b", logs=("a",) if is_log else (), winsor=(0.05, 0.95))
    more = {
        "b": pa.array(range(len(rows)), pa.int64())
    }  # so that one feature always says something
    one, other = (
        RobustScale.fit(pa.table({"a": pa.array(of, pa.float64()), **more}), spec)
        for of in (rows, shuffled)
    )
    assert one.features == other.features
    for name in ("low_F", "high_F", "center_F", "spread_F"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@settings(max_examples=60, deadline=None)
@given(rows=_ROWS, is_log=st.booleans())
def test_values_inside_the_quantiles_come_back_from_the_scale(rows, is_log):
    table = pa.table({"a": pa.array(rows, pa.float64()), "b": range(len(rows))})
    scale = RobustScale.fit(table, spec_of("a", "b", logs=("a",) if is_log else ()))
    restored = scale.restore(scale.transform(table))
    if "a" in scale.features:
        known = [row for row in rows if row is not None]
        back = [value for value, row in zip(restored[:, 0], rows, strict=True) if row is not None]
        assert back == pytest.approx(known, rel=1e-6, abs=1e-6 * max(known))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"features": ()}, "at least one entry"),
        ({"algorithms": ()}, "at least one entry"),
        ({"winsor": (0.9, 0.1)}, "winsor is"),
        ({"explained_variance": 0.0}, "explained_variance is 0.0"),
        ({"num_clusters": (1, 4)}, "num_clusters is"),
        ({"num_clusters": (5, 4)}, "num_clusters is"),
        ({"min_cluster_shares": (0.5,)}, "min_cluster_shares is"),
        ({"bootstraps": 0}, "bootstraps is 0"),
        ({"max_match_distance": 0.0}, "max_match_distance is 0.0"),
        ({"min_stability": 1.5}, "min_stability is 1.5"),
    ],
)
def test_a_bad_spec_says_what_is_allowed(bad, says):
    with pytest.raises(ValueError, match=says):
        ClusterSpec(**bad)
