import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.errors import InputError
from perso.segments.cube import SegmentBox
from perso.segments.rfm import RfmScale, RfmSpec, recency_scores
from perso.spec import parse_spec, spec_to_dict

SPEC = RfmSpec()


def buyers(rows):
    """Measures from (recency_days or None, frequency, monetary)."""
    days, frequency, monetary = zip(*rows, strict=True)
    return pa.table(
        {
            "recency_days": pa.array(days, pa.float32()),
            "frequency": pa.array(frequency, pa.int64()),
            "monetary": pa.array(monetary, pa.float64()),
        }
    )


def scored(rows, spec=SPEC):
    table = buyers(rows)
    found = RfmScale.fit(table, spec).score(table, spec)
    names = [spec.cube.names[code] for code in found["segment_code"]]
    return {**{k: np.asarray(v).tolist() for k, v in found.items()}, "segment": names}


def test_recency_is_a_scale_of_days_over_the_horizon():
    days = np.array([0.0, 1.8, 1.9, 30.0, 91.0, 181.9, 182.0, 5000.0])
    assert recency_scores(days, 182.0).tolist() == [100, 100, 99, 84, 51, 2, 1, 1]


def test_eight_distinct_customers_fall_into_four_even_quartiles():
    found = scored([(1.0, n, 1.0) for n in range(1, 9)])
    assert found["frequency_quartile"] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert set(found["monetary_tier"]) == {1}  # all spent alike: a tie


def test_tiers_hold_the_shares_of_the_spec():
    found = scored([(1.0, 1, float(n)) for n in range(1, 101)])
    counts = np.bincount(found["monetary_tier"])
    assert counts.tolist() == [0, 50, 30, 15, 5]


def test_amounts_win_over_shares_and_begin_their_tier():
    spec = RfmSpec(monetary_amounts=(10.0, 100.0, 1000.0))
    found = scored([(1.0, 1, m) for m in (9.99, 10.0, 99.0, 100.0, 1000.0)], spec)
    assert found["monetary_tier"] == [1, 2, 2, 3, 4]


def test_orders_win_over_quartiles_and_begin_their_level():
    spec = RfmSpec(frequency_orders=(1, 2, 5))
    found = scored([(1.0, n, 1.0) for n in (0, 1, 2, 4, 5, 90)], spec)
    assert found["frequency_quartile"] == [1, 2, 3, 3, 4, 4]


def test_who_never_bought_has_no_scores_and_moves_nobodys():
    rows = [(float(n), n, float(n)) for n in range(1, 9)]
    alone, among = scored(rows), scored([*rows, *[(None, 0, 0.0)] * 50])
    for name, values in among.items():
        assert values[: len(rows)] == alone[name]
    assert among["segment"][-1] == "browsers"
    assert among["rfm_score"][-1] == among["recency_score"][-1] == 0


def test_the_composite_score_is_the_weighted_mean_on_one_scale():
    rows = [(91.0, 1, 1.0), (91.0, 9, 9.0), (91.0, 9, 9.0), (91.0, 9, 9.0)]
    assert scored(rows)["rfm_score"][0] == pytest.approx((51 + 25 + 25) / 3)
    weighted = scored(rows, RfmSpec(weights=(2.0, 1.0, 1.0)))
    assert weighted["rfm_score"][0] == pytest.approx((2 * 51 + 25 + 25) / 4)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"recency_horizon_days": 0.0}, "recency_horizon_days is 0.0"),
        ({"monetary_quantiles": (0.5, 0.5, 0.9)}, "three rising shares"),
        ({"monetary_amounts": (5.0, 1.0, 9.0)}, "three rising amounts"),
        ({"frequency_orders": (1, 1, 2)}, "three rising numbers of orders"),
        ({"weights": (0.0, 0.0, 0.0)}, "not all 0"),
        ({"segments": (SegmentBox(name="some", recency=(50, 100)),)}, "no segment covers"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        RfmSpec(**bad)


def test_a_gap_in_a_file_is_one_sentence():
    document = {"segments": [{"name": "regulars", "frequency": [2, 4]}]}
    with pytest.raises(InputError, match="no segment covers recency 1, frequency 1, monetary 1"):
        parse_spec(RfmSpec, document)


def test_a_spec_survives_the_file_boundary():
    assert parse_spec(RfmSpec, spec_to_dict(SPEC)) == SPEC


def test_nobody_who_bought_is_no_error():
    assert scored([(None, 0, 0.0)])["segment"] == ["browsers"]


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(0, 400, width=32)),
            st.integers(0, 9),
            st.integers(0, 50).map(float),
        ),
        min_size=1,
        max_size=60,
    )
)
@settings(max_examples=80, deadline=None)
def test_scores_follow_values_and_equal_values_score_alike(rows):
    found = scored(rows)
    is_buyer = [row[0] is not None for row in rows]
    for place, name, best, sign in (
        (0, "recency_score", 100, -1),
        (1, "frequency_quartile", 4, 1),
        (2, "monetary_tier", 4, 1),
    ):
        pairs = sorted(
            (sign * row[place], score)
            for row, score, bought in zip(rows, found[name], is_buyer, strict=True)
            if bought
        )
        assert [score for _, score in pairs] == sorted(score for _, score in pairs)
        assert all(1 <= score <= best for _, score in pairs)
        score_of = dict(pairs)
        assert all(score_of[value] == score for value, score in pairs)
    # At most a quarter of the buyers lie above each quartile.
    quartiles = [
        q for q, bought in zip(found["frequency_quartile"], is_buyer, strict=True) if bought
    ]
    for level in range(1, 4):
        assert sum(q > level for q in quartiles) <= len(quartiles) * (4 - level) / 4
