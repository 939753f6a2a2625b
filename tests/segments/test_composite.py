import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.segments.composite import CompositeScale, CompositeSpec, ScoreDimension

SPEC = CompositeSpec()


def measures(days, spend, engagement):
    return pa.table(
        {
            "days_since_event": pa.array(days, pa.float32()),
            "spend": pa.array(spend, pa.float64()),
            "engagement": pa.array(engagement, pa.float32()),
        }
    )


def score(table, spec=SPEC, sample=None):
    found = CompositeScale.fit(table if sample is None else sample, spec).score(table, spec)
    return found["composite_score"].tolist(), found["score_contributions"].to_pylist(), found


def test_each_contribution_is_its_weight_times_its_place():
    table = measures([1, 2, 3, 4], [40, 30, 20, 10], [0.1, 0.2, 0.3, 0.4])
    scores, parts, found = score(table)
    # Mid-ranks of four distinct values: 1/8, 3/8, 5/8, 7/8.
    assert parts[0] == pytest.approx([0.4 * 7 / 8, 0.3 * 7 / 8, 0.3 / 8])
    assert parts[3] == pytest.approx([0.4 / 8, 0.3 / 8, 0.3 * 7 / 8])
    assert scores[0] == pytest.approx(sum(parts[0]))
    assert found["score_dimensions"].to_pylist()[0] == [
        "recency",
        "purchase_volume",
        "engagement_depth",
    ]


def test_one_giant_does_not_press_everybody_else_to_zero():
    spend = [*map(float, range(1, 100)), 1e9]
    spec = CompositeSpec(
        dimensions=(ScoreDimension(name="volume", measure="spend", weight=1.0),),
        normalize="winsor",
    )
    scores, _, _ = score(measures([0.0] * 100, spend, [0.0] * 100), spec)
    assert scores[49] == pytest.approx(0.5, abs=0.02)
    assert scores[99] == scores[97] == 1.0


def test_what_is_not_known_counts_as_the_worst():
    spec = CompositeSpec(
        dimensions=(
            ScoreDimension(name="calm", measure="spend", weight=1.0, higher_is_better=False),
        )
    )
    scores, _, _ = score(measures([1, 1, 1], [1.0, 2.0, None], [0, 0, 0]), spec)
    assert scores[2] == 0.0 < scores[1] < scores[0]


def test_a_scale_without_extent_is_the_middle():
    for normalize in ("quantile", "winsor"):
        scores, _, _ = score(measures([1], [5.0], [0.2]), CompositeSpec(normalize=normalize))
        assert scores == [0.5]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CompositeSpec(dimensions=()), "at least one"),
        (lambda: CompositeSpec(winsor=(0.9, 0.1)), "two rising quantiles"),
        (lambda: ScoreDimension(name="a", measure="spend", weight=0.0), "number above 0"),
        (
            lambda: score(
                measures([1], [1], [1]),
                CompositeSpec(dimensions=(ScoreDimension(name="a", measure="taste", weight=1.0),)),
            ),
            "'taste' is no number",
        ),
    ],
)
def test_a_spec_that_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


ROWS = st.lists(
    st.tuples(
        st.floats(0, 400, width=32), st.integers(0, 50).map(float), st.floats(0, 1, width=32)
    ),
    min_size=1,
    max_size=40,
)


@given(ROWS, st.sampled_from(["quantile", "winsor"]))
@settings(max_examples=60, deadline=None)
def test_scores_are_bounded_explained_and_per_row(rows, normalize):
    spec = CompositeSpec(normalize=normalize)
    table = measures(*zip(*rows, strict=True))
    scores, parts, _ = score(table, spec)
    assert all(0 <= value <= 1 for value in scores)
    for value, contributions in zip(scores, parts, strict=True):
        assert value == pytest.approx(sum(contributions), abs=1e-6)
    half = len(rows) // 2
    pieces = [
        score(part, spec, sample=table)[0] for part in (table.slice(0, half), table.slice(half))
    ]
    assert [*pieces[0], *pieces[1]] == scores
