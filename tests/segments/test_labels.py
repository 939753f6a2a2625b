import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.segments.cluster_config import DEFAULT_WORDS, ClusterSpec
from perso.segments.labels import likeness, name_clusters
from perso.segments.scaling import RobustScale

FEATURES = ("num_orders", "spend", "engagement", "evening_share")
SPEC = ClusterSpec(features=FEATURES)


def scale_of(features=FEATURES, center=1.0):
    num_features = len(features)
    return RobustScale(
        features=features,
        is_log_F=np.zeros(num_features, np.bool_),
        low_F=np.full(num_features, -1e9),
        high_F=np.full(num_features, 1e9),
        center_F=np.full(num_features, center),
        spread_F=np.ones(num_features),
    )


def labels_of(*rows, spec=SPEC, keys=None, scale=None, **more):
    keys = keys or [f"c{n + 1:02d}" for n in range(len(rows))]
    return name_clusters(np.array(rows, np.float64), scale or scale_of(), spec, keys=keys, **more)


def test_the_farthest_measures_are_the_words():
    assert labels_of([2.0, 0.4, -1.0, 3.0]) == ("Evening frequent hurried buyers",)
    assert labels_of([0.0, 1.0, 0.0, 0.6]) == ("High-value evening buyers",)


def test_no_more_words_than_the_spec_allows():
    spec = ClusterSpec(features=FEATURES, max_words=1)
    assert labels_of([2.0, 0.4, -1.0, 3.0], spec=spec) == ("Evening buyers",)


def test_a_side_without_a_word_says_nothing():
    assert DEFAULT_WORDS["evening_share"][0] is None
    assert labels_of([0.0, 0.6, 0.0, -5.0]) == ("High-value buyers",)


def test_who_is_like_most_is_typical():
    assert labels_of([0.1, -0.1, 0.2, 0.0]) == ("Typical buyers",)
    assert labels_of([0.5, 0.0, 0.0, 0.0]) == ("Frequent buyers",)  # the threshold counts


def test_who_has_not_ordered_is_a_visitor():
    assert labels_of([-0.4, 0.0, 0.0, 0.0]) == ("Typical buyers",)
    assert labels_of([-0.6, 0.0, 0.0, 0.0]) == ("Rare visitors",)
    other = scale_of(("spend",))
    assert labels_of([0.0], scale=other) == ("Typical customers",)


def test_of_two_alike_the_second_gets_a_word_more():
    close, same = [1.0, 0.3, 0.0, 0.0], [1.1, 0.4, 0.0, 0.0]
    assert set(labels_of(close, same)) == {"Frequent buyers", "Frequent high-value buyers"}


def test_where_no_word_sets_them_apart_a_number_does():
    spec = ClusterSpec(features=FEATURES, words={"num_orders": ("rare", "frequent")})
    rows = [[1.0 + n / 10, 0.0, 0.0, 0.0] for n in range(3)]
    assert sorted(labels_of(*rows, spec=spec)) == [
        "Frequent buyers", "Frequent buyers 2", "Frequent buyers 3",
    ]  # fmt: skip


def test_labels_that_are_taken_are_not_given_again():
    assert labels_of([1.0, 0.3, 0.0, 0.0], taken={"Frequent buyers"}) == (
        "Frequent high-value buyers",
    )


def test_names_of_people_win_and_nobody_else_gets_them():
    spec = ClusterSpec(features=FEATURES, names={"c02": "Frequent buyers", "c77": "Unused"})
    row = [1.0, 0.3, 0.0, 0.0]
    assert labels_of(row, row, spec=spec) == ("Frequent high-value buyers", "Frequent buyers")
    assert labels_of(row, row, spec=spec, keys=["c02", "c01"])[0] == "Frequent buyers"


def test_one_name_for_two_clusters_is_an_error():
    with pytest.raises(ValueError, match="Stars"):
        ClusterSpec(names={"c01": "Stars", "c02": "Stars"})


def test_no_cluster_has_no_label():
    assert name_clusters(np.zeros((0, 4)), scale_of(), SPEC, keys=[]) == ()


_DEVIATIONS = st.sampled_from([-2.0, -0.7, -0.2, 0.0, 0.2, 0.7, 2.0])
_CENTROIDS = st.lists(st.tuples(*[_DEVIATIONS] * 4), min_size=1, max_size=9)


@settings(max_examples=150, deadline=None)
@given(rows=_CENTROIDS)
def test_no_two_clusters_share_a_label(rows):
    labels = labels_of(*rows)
    assert len(set(labels)) == len(rows)
    assert all(label[0].isupper() for label in labels)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(*[_DEVIATIONS] * 4), min_size=1, max_size=9, unique=True),
       seed=st.integers(0, 99))  # fmt: skip
def test_the_order_of_clusters_changes_no_label(rows, seed):
    order = np.random.default_rng(seed).permutation(len(rows))
    labels = labels_of(*rows)
    shuffled = labels_of(*[rows[place] for place in order])
    assert list(shuffled) == [labels[place] for place in order]


def test_likeness_is_the_share_of_common_words():
    assert likeness("Frequent buyers", "Rare visitors") == 0.0
    assert likeness("Frequent evening buyers", "Frequent buyers") == pytest.approx(2 / 3)
    assert likeness("Frequent buyers", "Frequent buyers 2") == pytest.approx(2 / 3)


@given(one=st.text("ab ", min_size=1).filter(str.strip), other=st.text("bc ").filter(str.strip))
def test_likeness_is_a_share_that_has_no_direction(one, other):
    assert likeness(one, one) == 1.0
    assert 0.0 <= likeness(one, other) == likeness(other, one) <= 1.0
