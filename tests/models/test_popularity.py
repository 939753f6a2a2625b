import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.data.groups import UserGroups
from perso.models.popularity import MAX_SLICES, PopularityModel, fit_popularity
from perso.models.popularity_config import PopularityConfig
from perso.models.protocol import UserBatch
from perso.spec import parse_spec


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


@pytest.fixture
def by_context(build):
    """Item 0 sells on the desk, item 1 on the phone and at night, item 2 to segment b."""
    world = build(
        [(0, 0), (1, 1), (2, 2)],
        num_users=4,
        num_items=4,
        weights=[1, 2, 4],
        context={"device": ["desk", "phone", None], "hour/of day": ["noon", "night", "noon"]},
    )
    return fit_popularity(world, UserGroups.from_names([None, None, "b", None]), smoothing=0)


def test_segment_goes_before_context_and_context_before_the_whole_shop(by_context):
    users = UserBatch(
        user_indices=np.array([0, 1, -1, -1, 2, -1]),
        segment_names=("b", "zzz", None, None, None, None),
        context={
            "device": ["phone", "phone", "desk", "tv", None, "desk"],
            "hour/of day": ["noon", None, "night", "dawn", None, "noon"],
            "mood": ["good"] * 6,
        },
    )
    expected = [
        [0, 0, 1, 0],  # the segment
        [0, 1, 0, 0],  # an unknown segment: the phone
        [0.5, 0.5, 0, 0],  # the mean of desk and night
        [1 / 7, 2 / 7, 4 / 7, 0],  # nothing known
        [1 / 7, 2 / 7, 4 / 7, 0],
        [(1 + 1 / 5) / 2, 0, 4 / 5 / 2, 0],  # the mean of desk and noon
    ]
    np.testing.assert_allclose(by_context.score(users), expected, rtol=1e-6)
    without_segments = dataclasses.replace(users, segment_names=None)
    np.testing.assert_allclose(by_context.score(without_segments)[0], [0.1, 0.5, 0.4, 0], rtol=1e-6)
    assert by_context.context_scores({"device": "tv", "hour/of day": None}) is None


def test_each_context_has_one_voice_however_its_scores_are_scaled():
    rows = {"device": [2, 6, 0], "region": [0, 1, 1], "daypart": [0, 0, 0]}
    model = PopularityModel(
        global_scores_I=np.full(3, 1 / 3, np.float32),
        slices={kind: (("x",), np.array([row], np.float32)) for kind, row in rows.items()},
    )
    mean_I = model.context_scores(dict.fromkeys(rows, "x"))
    np.testing.assert_allclose(mean_I, [0.125, 0.625, 0.25], rtol=1e-6)


def test_groups_by_segment_win_over_a_context_column_of_that_name(build):
    world = build([(0, 0), (1, 1)], num_users=2, num_items=2, context={"segment": ["x", "y"]})
    assert fit_popularity(world).slices["segment"][0] == ("x", "y")
    assert fit_popularity(world, UserGroups.from_names(["a", "b"])).slices["segment"][0] == (
        "a",
        "b",
    )


def aged(build, ages_in_days, **context):
    """A pair of weight 1 per age, item by item."""
    pairs = [(0, item) for item in range(len(ages_in_days))]
    world = build(pairs, num_users=1, num_items=len(pairs), context=context)
    last_at = np.array([(100 - age) * 86_400_000_000 for age in ages_in_days], np.int64)
    return dataclasses.replace(world, last_at=last_at)


def test_a_half_life_halves_the_weight_of_what_is_so_old(build):
    world = aged(build, [0, 7, 14], device=["phone", "desk", "desk"])
    model = fit_popularity(world, half_life_days=7, smoothing=0)
    np.testing.assert_allclose(model.global_scores_I, [4 / 7, 2 / 7, 1 / 7], rtol=1e-6)
    np.testing.assert_allclose(model.slice_scores("device", "desk"), [0, 2 / 3, 1 / 3], rtol=1e-6)
    even = fit_popularity(world, smoothing=0)
    np.testing.assert_allclose(even.global_scores_I, [1 / 3] * 3, rtol=1e-6)


@given(shift=st.integers(-1000, 1000), half_life=st.floats(0.5, 500))
def test_only_ages_count_not_the_date(build, shift, half_life):
    world = aged(build, [0, 3, 10, 50])
    moved = dataclasses.replace(world, last_at=world.last_at + shift * 86_400_000_000)
    one, other = (fit_popularity(w, half_life_days=half_life) for w in (world, moved))
    np.testing.assert_allclose(one.global_scores_I, other.global_scores_I, rtol=1e-6)
    assert (np.diff(one.global_scores_I) < 0).all()


def test_context_columns_of_any_name_survive_saving(by_context, tmp_path):
    by_context.save(tmp_path)
    loaded = PopularityModel.load(tmp_path)
    assert loaded.slices.keys() == {"device", "hour/of day", "segment"}
    for kind, (names, scores_SI) in by_context.slices.items():
        assert loaded.slices[kind][0] == names
        np.testing.assert_array_equal(loaded.slices[kind][1], scores_SI)


def test_scores_that_do_not_fit_are_refused(by_context):
    names, scores_SI = by_context.slices["device"]
    with pytest.raises(ValueError, match=r"by device have shape \(2, 3\), .* ask for \(2, 4\)"):
        dataclasses.replace(by_context, slices={"device": (names, scores_SI[:, :3])})


def test_a_config_can_be_read_from_a_spec():
    config = parse_spec(PopularityConfig, {"family": "popularity", "half_life_days": 30})
    assert config == PopularityConfig(half_life_days=30)
    for wrong, message in (
        ({"family": "als"}, "family is 'als'"),
        ({"smoothing": float("inf")}, "smoothing is inf; give 0 or more"),
        ({"half_life_days": 0.0}, r"half_life_days is 0\.0; give a number above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            PopularityConfig(**wrong)


def test_wrong_arguments_are_named(build):
    world = build([(0, 0)], num_users=1, num_items=1)
    with pytest.raises(ValueError, match=r"smoothing is -1"):
        fit_popularity(world, smoothing=-1)
    with pytest.raises(ValueError, match="half_life_days is -3"):
        fit_popularity(world, half_life_days=-3)
    with pytest.raises(ValueError, match="segments cover 2 users, interactions 1"):
        fit_popularity(world, UserGroups.from_names(["a", "b"]))
