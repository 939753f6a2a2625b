import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.data.groups import UserGroups
from perso.models.popularity import MAX_SLICES, PopularityModel, fit_popularity
from perso.models.protocol import UserBatch


def test_scores_are_shares_of_the_weights(build):
    world = build([(0, 0), (0, 2), (1, 2)], num_users=2, num_items=4, weights=[1, 2, 5])
    assert fit_popularity(world).global_scores_I.tolist() == [0.125, 0, 0.875, 0]


def test_slices_count_their_own_users_and_contexts(build):
    world = build(
        [(0, 0), (0, 1), (1, 1), (2, 2)],
        num_users=3,
        num_items=3,
        weights=[3, 1, 4, 9],
        context={"device": ["phone", "desk", "phone", None], "region": ["DE", "DE", "DE", "DE"]},
    )
    model = fit_popularity(world, UserGroups.from_names(["a", "b", None]), smoothing=0)
    assert model.slice_scores("segment", "a").tolist() == [0.75, 0.25, 0]
    assert model.slice_scores("segment", "b").tolist() == [0, 1, 0]
    np.testing.assert_allclose(model.slice_scores("device", "phone"), [3 / 7, 4 / 7, 0])
    np.testing.assert_allclose(model.slice_scores("region", "DE"), model.global_scores_I)


@pytest.mark.parametrize("unknown", [("segment", "z"), ("daypart", "night"), ("mood", "good")])
def test_an_unknown_slice_has_no_scores(build, unknown):
    world = build([(0, 0)], num_users=1, num_items=1)
    assert fit_popularity(world, UserGroups.from_names(["a"])).slice_scores(*unknown) is None


@given(smoothing=st.floats(0, 100), seed=st.integers(0, 1000))
def test_smoothing_moves_a_slice_to_the_whole_and_shares_still_add_up(build, smoothing, seed):
    rng = np.random.default_rng(seed)
    pairs = sorted({(int(u), int(i)) for u, i in rng.integers(0, 6, (20, 2))})
    world = build(pairs, num_users=6, num_items=6, weights=rng.uniform(0.1, 9, len(pairs)))
    groups = UserGroups.from_names(["a", "a", "b", "b", "c", None])

    def gap(strength):
        model = fit_popularity(world, groups, smoothing=strength)
        rows = model.slices["segment"][1]
        np.testing.assert_allclose(rows.sum(1), 1.0, rtol=1e-5)
        return np.abs(rows - model.global_scores_I).sum()

    assert gap(smoothing + 1) <= gap(smoothing) + 1e-5
    assert gap(1e9) < 1e-4


def test_a_tiny_slice_follows_the_whole_shop_beyond_its_few_purchases(build):
    pairs = [(user, item) for user in range(1, 30) for item in range(1, 1 + user % 5)]
    world = build([(0, 5), *pairs], num_users=30, num_items=6)
    model = fit_popularity(world, UserGroups.from_names(["tiny", *["big"] * 29]))
    tiny_I = model.slice_scores("segment", "tiny")
    assert tiny_I[5] > model.global_scores_I[5]
    assert np.argsort(-tiny_I[:5]).tolist() == np.argsort(-model.global_scores_I[:5]).tolist()


def test_known_segments_get_their_own_list_and_the_others_the_global_one(build):
    world = build([(0, 0), (1, 1), (2, 1)], num_users=3, num_items=2)
    model = fit_popularity(world, UserGroups.from_names(["a", "b", "b"]))
    users = UserBatch(
        user_indices=np.array([0, 1, -1, 2], np.int64), segment_names=("a", None, "b", "zzz")
    )
    expected = [
        model.slice_scores("segment", "a"),
        model.global_scores_I,
        model.slice_scores("segment", "b"),
        model.global_scores_I,
    ]
    np.testing.assert_array_equal(model.score(users), expected)


def test_only_the_busiest_slices_of_a_kind_are_kept(build):
    num_regions = MAX_SLICES + 5
    pairs = [(region, item) for region in range(num_regions) for item in range(1 + region // 40)]
    regions = [f"r{region:03}" for region, _ in pairs]
    world = build(pairs, num_users=num_regions, num_items=3, context={"region": regions})
    names, scores_SI = fit_popularity(world).slices["region"]
    assert len(names) == len(scores_SI) == MAX_SLICES
    assert {f"r{region:03}" for region in range(40, num_regions)} <= set(names)


def test_nothing_to_count_gives_zeros(build):
    model = fit_popularity(build([], num_users=2, num_items=3), UserGroups.from_names(["a", "b"]))
    assert model.global_scores_I.tolist() == [0, 0, 0]
    assert model.slices == {}


def test_names_in_any_script_survive_saving(build, tmp_path):
    world = build([(0, 0)], num_users=1, num_items=1, context={"region": ["Zürich 東"]})
    fit_popularity(world).save(tmp_path)
    assert PopularityModel.load(tmp_path).slice_scores("region", "Zürich 東").tolist() == [1.0]


def test_wrong_arguments_are_named(build):
    world = build([(0, 0)], num_users=1, num_items=1)
    with pytest.raises(ValueError, match=r"smoothing is -1"):
        fit_popularity(world, smoothing=-1)
    with pytest.raises(ValueError, match="segments cover 2 users, interactions 1"):
        fit_popularity(world, UserGroups.from_names(["a", "b"]))
