from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.dictionary import CREATED, EVENT_TIMESTAMP, USER_CLUSTERS, VIEWS
from perso.segments.cluster_config import ClusterSpec
from perso.segments.cluster_model import ClusterModel
from perso.segments.composite import CompositeScale
from perso.segments.instant import InstantRun
from perso.segments.measures import MEASURES_SCHEMA
from perso.segments.rfm import RfmScale
from perso.segments.scaling import RobustScale
from perso.segments.scoring import USER_VIEWS, Scorer
from perso.segments.spec import SegmentSpec

AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPEC = SegmentSpec(clusters=ClusterSpec(features=("num_orders", "engagement")))


def blank_of(kind):
    if pa.types.is_timestamp(kind):
        return AS_OF
    return [] if pa.types.is_list(kind) else pa.scalar(0).cast(kind).as_py()


def customers(num_customers, seed=0):
    """MEASURES_SCHEMA rows of buyers and browsers, in three groups by orders and engagement."""
    rng = np.random.default_rng(seed)
    blank = {
        field.name: blank_of(field.type)
        for view in USER_VIEWS
        for field in view.schema
        if not field.nullable and field.name in MEASURES_SCHEMA.names
    }
    rows = []
    for n in range(num_customers):
        is_buyer = n % 3 > 0
        orders = (0, 2, 9)[n % 3]
        rows.append(
            {
                **blank,
                "user_id": f"u{n:04d}",
                "recency_days": float(rng.uniform(0, 300)) if is_buyer else None,
                "frequency": orders,
                "monetary": float(rng.uniform(1, 100)) * orders,
                "num_orders": orders,
                "spend": float(rng.uniform(1, 100)) * orders,
                "engagement": float(rng.uniform(0, 1)),
                "engagement_level": "low",
                "days_since_event": float(rng.uniform(0, 30)),
                "num_sessions": int(rng.integers(1, 9)),
                "top_categories": ["mugs"] if is_buyer else [],
                "recent_item_ids": ["x", "y"],
            }
        )
    return pa.Table.from_pylist(rows, schema=MEASURES_SCHEMA)


def model_of(algorithm="gaussian_mixture", next_to=0.5):
    """Three clusters along the number of orders, at 0, 2 and 9."""
    centers_CD = np.array([[0.0, next_to], [2.0, next_to], [9.0, next_to]])
    arrays = {
        "kmeans": {"centers_CD": centers_CD},
        "gaussian_mixture": {
            "weights_C": np.array([0.3, 0.3, 0.4]),
            "means_CD": centers_CD,
            "precisions_CDD": np.stack([np.eye(2)] * 3),
        },
        "hdbscan": {
            "cores_KD": centers_CD,
            "codes_K": np.arange(3.0),
            "radius_K": np.full(3, 0.3),
        },
    }
    return ClusterModel(
        algorithm=algorithm,
        scale=RobustScale(
            features=("num_orders", "engagement"),
            is_log_F=np.zeros(2, np.bool_),
            low_F=np.full(2, -1e9),
            high_F=np.full(2, 1e9),
            center_F=np.zeros(2),
            spread_F=np.ones(2),
        ),
        mean_F=np.zeros(2),
        components_DF=np.eye(2),
        centroids_CF=centers_CD,
        keys=("c01", "c04", "c07"),
        labels=("Rare visitors", "Buyers", "Frequent buyers"),
        meanings=("Rare visitors", "Buyers", "Frequent buyers"),
        next_key=8,
        arrays=arrays[algorithm],
    )


def scorer_for(measures, clusters=None, **more):
    return Scorer(
        spec=SPEC,
        rfm=RfmScale.fit(measures, SPEC.rfm),
        composite=CompositeScale.fit(measures, SPEC.composite),
        clusters=clusters,
        **more,
    )


def rows_of(scorer, measures):
    return scorer.rows(measures, as_of=AS_OF, created=AS_OF + timedelta(hours=2))


def cluster_rows(measures, algorithm="gaussian_mixture", **more):
    scorer = scorer_for(measures, model_of(algorithm), **more)
    return rows_of(scorer, measures)["user_clusters"]


@pytest.mark.parametrize("algorithm", ["kmeans", "gaussian_mixture", "hdbscan", None])
@pytest.mark.parametrize("num_customers", [0, 1, 40])
def test_rows_of_every_view_have_its_schema(algorithm, num_customers):
    measures = customers(num_customers)
    scorer = scorer_for(customers(40), model_of(algorithm) if algorithm else None)
    rows = rows_of(scorer, measures)
    assert list(rows) == [view.name for view in USER_VIEWS]
    for name, table in rows.items():
        assert table.schema.equals(VIEWS[name].schema, check_metadata=True), name
        table.validate(full=True)
        assert table["user_id"].to_pylist() == measures["user_id"].to_pylist()
        assert set(table[EVENT_TIMESTAMP].to_pylist()) <= {AS_OF}
        assert set(table[CREATED].to_pylist()) <= {AS_OF + timedelta(hours=2)}
        for field in table.schema:
            assert field.nullable or not table[field.name].null_count, field.name


def test_measures_pass_through_unchanged():
    measures = customers(12)
    rows = rows_of(scorer_for(measures), measures)
    for view, name in [
        ("user_activity", "num_sessions"),
        ("user_affinities", "top_categories"),
        ("user_recent_events", "recent_item_ids"),
        ("user_rfm", "frequency"),
    ]:
        assert rows[view][name].to_pylist() == measures[name].to_pylist()


def test_rows_are_never_known_before_they_were_made():
    measures = customers(3)
    scorer = scorer_for(measures)
    with pytest.raises(ValueError, match="nobody knew these rows then"):
        scorer.rows(measures, as_of=AS_OF, created=AS_OF - timedelta(seconds=1))
    replayed = scorer.rows(measures, as_of=AS_OF, created=AS_OF)
    assert set(replayed["user_rfm"][CREATED].to_pylist()) == {AS_OF}


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 30), max_size=4),
    algorithm=st.sampled_from(["kmeans", "gaussian_mixture", "hdbscan"]),
)
def test_scoring_in_parts_equals_scoring_the_whole(cuts, algorithm):
    measures = customers(30)
    scorer = scorer_for(
        measures,
        model_of(algorithm),
        small_clusters=frozenset({"c04", "noise"}),
        small_segments=frozenset({"champions"}),
    )
    whole = rows_of(scorer, measures)
    ends = sorted(cuts)
    parts = [
        rows_of(scorer, measures.slice(start, end - start))
        for start, end in zip([0, *ends], [*ends, 30], strict=True)
    ]
    for name, table in whole.items():
        assert pa.concat_tables([part[name] for part in parts]).equals(table), name


def test_scoring_changes_no_input_and_keeps_the_order_of_rows():
    measures = customers(20)
    order = np.random.default_rng(1).permutation(20)
    scorer = scorer_for(measures, model_of())
    before = measures.to_pylist()
    whole, shuffled = rows_of(scorer, measures), rows_of(scorer, measures.take(order))
    assert measures.to_pylist() == before
    for name, table in whole.items():
        assert shuffled[name].to_pylist() == table.take(order).to_pylist(), name


def test_contributions_add_up_to_the_composite_score():
    measures = customers(50)
    rows = rows_of(scorer_for(measures), measures)["user_rfm"]
    for row in rows.to_pylist():
        assert row["score_dimensions"] == [d.name for d in SPEC.composite.dimensions]
        assert sum(row["score_contributions"]) == pytest.approx(row["composite_score"], abs=1e-6)
    assert len(set(rows["composite_score"].to_pylist())) > 40


def test_small_segments_are_called_other_and_keep_their_scores():
    measures = customers(60)
    told = rows_of(scorer_for(measures), measures)["user_rfm"]
    hidden_name = sorted(set(told["segment"].to_pylist()) - {"browsers"})[0]
    scorer = scorer_for(measures, small_segments=frozenset({hidden_name, "browsers"}))
    hidden = rows_of(scorer, measures)["user_rfm"]
    expected = [
        "other" if name in {hidden_name, "browsers"} else name
        for name in told["segment"].to_pylist()
    ]
    assert hidden["segment"].to_pylist() == expected and "other" in expected
    assert hidden.drop(["segment"]).equals(told.drop(["segment"]))


def test_a_customer_is_told_every_cluster_that_is_likely():
    measures = customers(60)
    rows = cluster_rows(measures)
    shares_NC = model_of().assign(measures).memberships_NC
    for row, share_C in zip(rows.to_pylist(), shares_NC, strict=True):
        ranked = sorted(zip(share_C.tolist(), model_of().keys, strict=True), reverse=True)
        kept = [(key, share) for share, key in ranked if share >= 0.05]
        assert row["member_of"] == [key for key, _ in kept]
        assert row["memberships"] == pytest.approx([share for _, share in kept])
        assert row["cluster"] == row["member_of"][0]
        assert row["cluster_membership"] == pytest.approx(row["memberships"][0])
        assert (
            row["cluster_label"]
            == dict(zip(model_of().keys, model_of().labels, strict=True))[row["cluster"]]
        )
        assert row["cluster_fit"] == model_of().fit_id
    assert {len(members) for members in rows["member_of"].to_pylist()} > {1}


def test_a_small_cluster_is_named_nowhere():
    measures = customers(60)
    told = cluster_rows(measures).to_pylist()
    hidden = cluster_rows(measures, small_clusters=frozenset({"c04"})).to_pylist()
    assert "c04" in {row["cluster"] for row in told}
    for before, after in zip(told, hidden, strict=True):
        if before["cluster"] == "c04":
            for name in ("cluster", "cluster_label", "cluster_membership", "member_of",
                         "memberships"):  # fmt: skip
                assert after[name] is None
            continue
        others = [
            (key, share)
            for key, share in zip(before["member_of"], before["memberships"], strict=True)
            if key != "c04"
        ]
        assert after["member_of"] == [key for key, _ in others]
        assert after["memberships"] == [share for _, share in others]
        assert after["cluster"] == before["cluster"]
    assert any("c04" in row["member_of"] for row in told if row["cluster"] != "c04")


def test_who_is_like_nobody_is_noise_without_a_membership():
    measures = customers(60)
    found = model_of("hdbscan").assign(measures)
    rows = cluster_rows(measures, "hdbscan").to_pylist()
    assert {-1, 0, 1, 2} == set(found.codes_N.tolist())
    for row, code in zip(rows, found.codes_N, strict=True):
        if code < 0:
            assert (row["cluster"], row["cluster_label"]) == ("noise", "Unlike any group")
            assert row["cluster_membership"] is None
            assert row["member_of"] == row["memberships"] == []
        else:
            assert row["member_of"] == [row["cluster"]] and row["memberships"] == [1.0]


def test_noise_of_too_few_customers_is_hidden_like_a_cluster():
    measures = customers(60)
    is_noise = model_of("hdbscan").assign(measures).codes_N < 0
    rows = cluster_rows(measures, "hdbscan", small_clusters=frozenset({"noise"}))
    for name in ("cluster", "cluster_label", "member_of", "memberships"):
        assert rows[name].is_null().to_pylist() == is_noise.tolist()


def test_without_clusters_nobody_has_one():
    measures = customers(5)
    rows = rows_of(scorer_for(measures), measures)["user_clusters"]
    for name in USER_CLUSTERS.feature_names:
        assert rows[name].null_count == 5
    assert scorer_for(measures).cluster_sizes(measures) == {}


def test_sizes_of_clusters_add_up_over_parts():
    measures = customers(60)
    scorer = scorer_for(measures, model_of("hdbscan"))
    sizes = scorer.cluster_sizes(measures)
    assert list(sizes) == ["noise", "c01", "c04", "c07"]
    assert sum(sizes.values()) == 60
    told = cluster_rows(measures, "hdbscan")["cluster"].to_pylist()
    assert sizes == {key: told.count(key) for key in sizes}
    parts = [scorer.cluster_sizes(measures.slice(start, 20)) for start in (0, 20, 40)]
    assert sizes == {key: sum(part[key] for part in parts) for key in sizes}


def hidden_of(sizes, minimum):
    run = InstantRun(
        as_of=AS_OF, created=AS_OF, spec=SegmentSpec(min_segment_size=minimum),
        sink=None, scratch=Path(), groups=[], num_customers=sum(sizes.values()),
    )  # fmt: skip
    return run._small(sizes)


@pytest.mark.parametrize(
    ("sizes", "hidden"),
    [
        ({"a": 50, "b": 10}, set()),
        ({"a": 50, "b": 30, "c": 9}, {"b", "c"}),  # alone, who sees the others could subtract
        ({"a": 50, "b": 6, "c": 6}, {"b", "c"}),
        ({"a": 50, "b": 20, "c": 4, "d": 5}, {"b", "c", "d"}),  # nine together are still few
        ({"a": 50, "b": 30, "c": 0}, set()),  # nobody is in it: nothing to hide
        ({"a": 3}, {"a"}),
        ({}, set()),
    ],
)
def test_groups_of_too_few_customers_are_hidden_never_one_alone(sizes, hidden):
    assert hidden_of(sizes, 10) == hidden


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 30)),
    minimum=st.integers(1, 15),
)
def test_what_is_hidden_is_enough_and_no_more_than_needed(sizes, minimum):
    hidden = hidden_of(sizes, minimum)
    present = {name: size for name, size in sizes.items() if size}
    too_small = {name for name, size in present.items() if size < minimum}
    assert too_small <= hidden <= set(present)
    if not too_small:
        assert not hidden
        return
    assert len(hidden) > 1 or len(present) == 1
    assert sum(present[name] for name in hidden) >= minimum or hidden == set(present)
    # Of those that are large enough at most one is hidden, the smallest.
    along = hidden - too_small
    assert len(along) <= 1
    if along:
        assert max(present[name] for name in along) == min(
            size for size in present.values() if size >= minimum
        )
        assert sum(present[name] for name in too_small) < minimum
