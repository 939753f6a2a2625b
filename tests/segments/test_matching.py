from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from perso.segments.cluster_config import ClusterSpec
from perso.segments.cluster_fit import fit_clusters, refit_clusters
from perso.segments.cluster_model import ClusterModel
from perso.segments.labels import name_clusters
from perso.segments.matching import continue_clusters
from perso.segments.scaling import RobustScale

FEATURES = ("num_orders", "spend", "engagement", "evening_share")
SPEC = ClusterSpec(features=FEATURES, log_features=(), max_match_distance=1.0)
OFTEN, RICH, EVENING, TYPICAL = np.array(
    [[4.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 0, 4.0], [0, 0, 0, 0]]
)


def fit_of(*centroids, features=FEATURES, center=1.0, spread=1.0, spec=SPEC):
    """A first fit with these centroids."""
    num_features = len(features)
    scale = RobustScale(
        features=features,
        is_log_F=np.zeros(num_features, np.bool_),
        low_F=np.full(num_features, -1e9),
        high_F=np.full(num_features, 1e9),
        center_F=np.full(num_features, center),
        spread_F=np.full(num_features, spread),
    )
    centroids_CF = np.array(centroids, np.float64)
    keys = tuple(f"c{n + 1:02d}" for n in range(len(centroids)))
    return ClusterModel(
        algorithm="kmeans",
        scale=scale,
        mean_F=np.zeros(num_features),
        components_DF=np.eye(num_features),
        centroids_CF=centroids_CF,
        keys=keys,
        labels=name_clusters(centroids_CF, scale, spec, keys=keys),
        meanings=name_clusters(centroids_CF, scale, replace(spec, names={}), keys=keys),
        next_key=len(keys) + 1,
        arrays={"centers_CD": centroids_CF},
    )


def names(model):
    return dict(zip(model.keys, model.labels, strict=True))


def test_clusters_that_hardly_moved_keep_key_and_label_in_any_order():
    before = fit_of(OFTEN, RICH, EVENING, TYPICAL)
    after = continue_clusters(fit_of(TYPICAL + 0.2, EVENING, OFTEN - 0.2, RICH), before, SPEC)
    assert after.model.keys == ("c04", "c03", "c01", "c02")
    assert names(after.model) == names(before)
    assert after.model.next_key == before.next_key
    assert (after.new, after.retired, after.changed) == ((), (), ())


@settings(max_examples=60, deadline=None)
@given(order=st.permutations(range(4)), seed=st.integers(0, 999))
def test_the_order_of_clusters_carries_no_meaning(order, seed):
    before = fit_of(OFTEN, RICH, EVENING, TYPICAL)
    moved = np.array([OFTEN, RICH, EVENING, TYPICAL])
    moved = moved + np.random.default_rng(seed).uniform(-0.3, 0.3, moved.shape)
    after = continue_clusters(fit_of(*moved[list(order)]), before, SPEC)
    assert after.model.keys == tuple(before.keys[place] for place in order)
    assert names(after.model) == names(before)
    assert np.array_equal(after.model.centroids_CF, moved[list(order)])


def test_a_split_gives_the_nearer_half_the_name_and_the_other_one_a_new_key():
    before = fit_of(OFTEN, RICH)
    after = continue_clusters(fit_of(OFTEN, RICH + 0.1, [0, 4.5, 0, 1.5]), before, SPEC)
    assert after.model.keys == ("c01", "c02", "c03")
    assert after.new == ("c03",) and after.retired == ()
    assert after.model.labels[:2] == before.labels
    assert after.model.labels[2] == "High-value evening buyers"
    assert after.model.next_key == 4


def test_a_new_cluster_is_never_called_as_one_that_goes_on():
    before = fit_of(OFTEN)
    after = continue_clusters(fit_of(OFTEN, OFTEN * 3), before, SPEC)
    assert after.model.keys == ("c01", "c02")
    assert len(set(after.model.labels)) == 2
    assert after.model.labels[0] == before.labels[0]


def test_a_cluster_that_is_gone_retires_its_key_for_ever():
    week1 = fit_of(OFTEN, RICH, EVENING)
    week2 = continue_clusters(fit_of(OFTEN, RICH), week1, SPEC)
    assert week2.retired == ("c03",) and week2.new == ()
    week3 = continue_clusters(fit_of(EVENING, OFTEN, RICH), week2.model, SPEC)
    assert week3.model.keys == ("c04", "c01", "c02")
    assert week3.new == ("c04",) and week3.model.next_key == 5


@settings(max_examples=40, deadline=None)
@given(weeks=st.lists(
    st.lists(st.sampled_from(range(7)), min_size=1, max_size=5, unique=True),
    min_size=2, max_size=8,
))  # fmt: skip
def test_over_many_weeks_a_retired_key_is_never_used_again(weeks):
    places = [np.eye(4)[n % 4] * 6 * (1 if n < 4 else -1) for n in range(7)]
    model = fit_of(*[places[n] for n in weeks[0]])
    used, retired = set(model.keys), set()
    for week in weeks[1:]:
        going = continue_clusters(fit_of(*[places[n] for n in week]), model, SPEC)
        assert not set(going.new) & used
        retired |= set(going.retired)
        assert not set(going.model.keys) & retired
        assert set(model.keys) - set(going.retired) == set(going.model.keys) - set(going.new)
        assert len(set(going.model.keys)) == len(set(going.model.labels)) == len(week)
        used |= set(going.model.keys)
        model = going.model


def test_too_far_is_another_cluster():
    before = fit_of(TYPICAL)
    # Per root of four features, so a step of 2 is a distance of 1.
    near = continue_clusters(fit_of([0, 1.99, 0, 0]), before, SPEC)
    far = continue_clusters(fit_of([0, 2.01, 0, 0]), before, SPEC)
    assert (near.new, near.retired) == ((), ())
    assert (far.new, far.retired) == (("c02",), ("c01",))


def test_a_cluster_that_is_gone_does_not_cost_its_neighbour_the_name():
    # Matched by the least sum alone, both pairs would be too far apart and no name go on.
    line = [np.array([x, 0.0, 0.0, 0.0]) for x in (0.0, 6.2, 0.2, -6.0)]
    going = continue_clusters(fit_of(line[2], line[3]), fit_of(line[0], line[1]), SPEC)
    assert going.model.keys == ("c01", "c03")
    assert going.new == ("c03",) and going.retired == ("c02",)


def test_a_moved_meaning_keeps_the_label_and_is_told_once():
    spec = replace(SPEC, max_match_distance=3.0)
    week1 = fit_of(OFTEN, TYPICAL)
    moved = np.array([0.0, 0.0, 0.0, 1.5])
    week2 = continue_clusters(fit_of(OFTEN, moved), week1, spec)
    (change,) = week2.changed
    assert (change.key, change.kept_label) == ("c02", "Typical buyers")
    assert change.label_now == "Evening buyers"
    assert change.distance == pytest.approx(1.5 / 2)
    assert week2.model.labels == week1.labels
    week3 = continue_clusters(fit_of(OFTEN, moved + 0.01), week2.model, spec)
    assert week3.changed == () and week3.model.labels == week1.labels
    back = continue_clusters(fit_of(OFTEN, TYPICAL), week3.model, spec)
    assert [change.label_now for change in back.changed] == ["Typical buyers"]


def test_a_slow_drift_is_held_against_what_was_last_told():
    spec = replace(SPEC, max_match_distance=3.0, min_likeness=0.4)
    model = fit_of([1.0, 0.0, 0.0, 0.0])  # Frequent buyers
    told = []
    for step in (
        [1.0, 0.8, 0.0, 0.0], [0.6, 0.8, 0.0, 0.7], [0.0, 0.8, 0.0, 0.7], [0.0, 0.0, 0.0, 0.7],
    ):  # fmt: skip
        going = continue_clusters(fit_of(step), model, spec)
        told.append([change.label_now for change in going.changed])
        model = going.model
    # Week by week the words are alike; against the start they are not.
    assert told == [[], [], ["High-value evening buyers"], []]
    assert model.labels == ("Frequent buyers",)


def test_names_of_people_win_over_those_before():
    before = fit_of(OFTEN, RICH)
    named = replace(SPEC, names={"c02": "Stars"})
    going = continue_clusters(fit_of(RICH, OFTEN), before, named)
    assert names(going.model) == {"c01": before.labels[0], "c02": "Stars"}
    assert going.changed == ()  # a given name is no change of meaning
    later = continue_clusters(fit_of(RICH, OFTEN, EVENING), going.model,
                              replace(SPEC, names={"c02": "Stars", "c03": "Owls"}))  # fmt: skip
    assert names(later.model)["c03"] == "Owls"


def test_a_name_that_people_give_to_one_cluster_is_taken_from_another():
    before = fit_of(OFTEN, RICH)
    swapped = replace(SPEC, names={"c02": before.labels[0]})
    going = continue_clusters(fit_of(OFTEN, RICH), before, swapped)
    assert names(going.model)["c02"] == before.labels[0]
    assert len(set(going.model.labels)) == 2


def test_fits_on_different_scales_and_features_are_compared_in_one_unit():
    before = fit_of(OFTEN, TYPICAL, center=0.0, spread=2.0)  # num_orders 8 and 0
    features = ("num_orders", "spend", "mobile_share")  # another set, another order of units
    after = fit_of([0.0, 0, 0], [8.0, 0, 0], features=features, center=0.0, spread=1.0)
    going = continue_clusters(after, before, SPEC)
    assert going.model.keys == ("c02", "c01")
    assert names(going.model) == names(before)


def test_continuing_changes_neither_fit():
    before, fitted = fit_of(OFTEN, RICH), fit_of(RICH, EVENING)
    ids = before.fit_id, fitted.fit_id, fitted.keys
    going = continue_clusters(fitted, before, SPEC)
    assert (before.fit_id, fitted.fit_id, fitted.keys) == ids
    assert np.array_equal(going.model.arrays["centers_CD"], fitted.arrays["centers_CD"])


@pytest.mark.parametrize("algorithm", ["kmeans", "gaussian_mixture", "hdbscan"])
def test_names_go_on_from_week_to_week_of_the_same_customers(algorithm):
    corners = np.array([[2, 20.0, 0.2, 0.1], [9, 90.0, 0.2, 0.1], [2, 20.0, 0.8, 0.8]])
    spec = ClusterSpec(
        features=FEATURES, algorithms=(algorithm,), num_clusters=(3, 3), min_customers=10,
        min_cluster_shares=(0.1,), bootstraps=1,
    )  # fmt: skip
    sizes = np.array([90, 70, 50])
    model = None
    for week in range(4):
        rng = np.random.default_rng(week)
        # Sizes change places, so the order of clusters does as well.
        points = np.repeat(corners * (1 + 0.02 * week), np.roll(sizes, week), axis=0)
        points = points + rng.normal(0, [0.3, 3.0, 0.03, 0.03], points.shape)
        sample = pa.table(dict(zip(FEATURES, points.T, strict=True)))
        with threadpool_limits(1):
            if model is None:
                model = first = fit_clusters(sample, spec, seed=week)
                continue
            fitted = refit_clusters(sample, spec, previous=model, seed=week)
        going = continue_clusters(fitted, model, spec)
        assert (going.new, going.retired, going.changed) == ((), (), ())
        assert names(going.model) == names(first)
        key_of_corner = [
            model.keys[code] if code >= 0 else "noise"
            for model in (first, going.model)
            for code in model.assign(
                pa.table(dict(zip(FEATURES, corners.T, strict=True)))
            ).codes_N
        ]  # fmt: skip
        assert key_of_corner[:3] == key_of_corner[3:] and len(set(key_of_corner)) == 3
        model = going.model
