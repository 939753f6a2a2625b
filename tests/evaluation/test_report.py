"""The report on worlds where every figure follows by construction, and against naive lines."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perso.evaluation.list_quality as list_quality_module
import perso.evaluation.lists as lists_module
from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.evaluation.bootstrap import bootstrap_intervals
from perso.evaluation.comparison import compare
from perso.evaluation.per_user import NEWCOMERS, NO_SEGMENT, measure_per_user
from perso.evaluation.report import NEW_ITEMS, evaluate
from perso.models.factors import FactorModel
from perso.models.newton_encoder import NewtonEncoder
from perso.models.popularity import fit_popularity
from perso.models.protocol import UserBatch
from perso.models.request_features import RequestFeatures


def build(pairs, *, num_users, num_items, ratings=None, weights=None, last_at=None, context=None):
    """Interactions; values of a pair are given by pair, 0 where a time is not given."""
    pairs = sorted(pairs)
    indices = np.array(pairs, np.int32).reshape(-1, 2)
    names, codes = {}, {}
    for column, value_of in (context or {}).items():
        names[column] = tuple(sorted(set(value_of.values())))
        found = [names[column].index(value_of[p]) if p in value_of else -1 for p in pairs]
        codes[column] = np.array(found, np.int32)
    return Interactions(
        num_users=num_users,
        num_items=num_items,
        user_indices=indices[:, 0].copy(),
        item_indices=indices[:, 1].copy(),
        weights=np.array([(weights or {}).get(p, 1.0) for p in pairs], np.float32),
        ratings=np.array([(ratings or {}).get(p, np.nan) for p in pairs], np.float32),
        last_at=np.array([(last_at or {}).get(p, 0) for p in pairs], np.int64),
        context_names=names,
        context_codes=codes,
    )


class FixedScores:
    """A model whose scores are given; it remembers what it was told of each user."""

    def __init__(self, scores_UI):
        self.scores_UI = np.asarray(scores_UI, np.float32)
        self.told = {}
        self.contexts = {}

    @property
    def num_items(self):
        return self.scores_UI.shape[1]

    def score(self, batch):
        names = batch.segment_names or (None,) * len(batch.user_indices)
        self.told |= dict(zip(batch.user_indices.tolist(), names, strict=True))
        for place, user in enumerate(batch.user_indices.tolist()):
            self.contexts[user] = {name: values[place] for name, values in batch.context.items()}
        return self.scores_UI[batch.user_indices]

    def save(self, folder):
        raise NotImplementedError


def factor_model(
    users_UD, items_ID, bias_I, *, predicts=None, global_bias=0.0, features=None
) -> FactorModel:
    """A model of given vectors; how new events are taken in does not matter here."""
    num_factors = items_ID.shape[1]
    return FactorModel(
        user_factors_UD=users_UD.astype(np.float32),
        user_bias_U=np.zeros(len(users_UD), np.float32),
        user_weight_U=np.ones(len(users_UD), np.float32),
        item_factors_ID=items_ID.astype(np.float32),
        item_bias_I=bias_I.astype(np.float32),
        global_bias=global_bias,
        predicts=predicts,
        encoder=NewtonEncoder(
            loss="squared",
            weight_unit=1.0,
            l2=1.0,
            center_D=np.zeros(num_factors, np.float32),
            curvature_DD=np.eye(num_factors, dtype=np.float32),
            recent_boost=1.0,
        ),
        request_features=features or RequestFeatures(num_factors=num_factors),
    )


SHAPE = {"num_users": 4, "num_items": 5}
DESCENDING = FixedScores(np.tile(np.arange(5, 0, -1), (4, 1)))


def test_items_of_the_training_period_are_neither_recommended_nor_relevant():
    train = build([(0, 0), (0, 1)], **SHAPE)
    held_out = build([(0, 0), (0, 2)], **SHAPE)  # 0 again, and 2: the best that is left
    report = evaluate(DESCENDING, train=train, held_out=held_out, ks=(1, 3))
    assert report.overall["recall@1"] == report.overall["hit_rate@1"] == 1.0
    assert report.overall["ndcg@1"] == report.overall["mrr@1"] == report.overall["map@3"] == 1.0
    assert report.overall["precision@3"] == pytest.approx(1 / 3)
    assert report.overall["coverage@3"] == 3 / 5  # items 2, 3 and 4
    assert report.num_users == 1


def test_users_with_nothing_new_in_the_period_do_not_count():
    train = build([(0, 0), (1, 1)], **SHAPE)
    report = evaluate(DESCENDING, train=train, held_out=build([(0, 0), (1, 0)], **SHAPE), ks=(2,))
    assert report.num_users == 1
    assert report.overall["recall@2"] == 1.0


def test_newcomers_are_a_slice_of_their_own_and_no_part_of_the_whole():
    train = build([(0, 0), (1, 1)], **SHAPE)
    held_out = build([(0, 1), (2, 4), (3, 4)], **SHAPE)
    groups = UserGroups.from_names(["a", "b", "a", None])
    report = evaluate(DESCENDING, train=train, held_out=held_out, ks=(2,), segments=groups)
    assert report.num_users == 1
    assert report.overall["recall@2"] == 1.0
    assert report.overall["novelty@2"] == pytest.approx((1 + 1) / 2)  # items 1 and 2 of two users
    assert report.num_users_by_segment == {"a": 1, NEWCOMERS: 2}
    assert report.per_segment[NEWCOMERS]["recall@2"] == 0.0


def test_segments_are_slices_and_told_to_the_model():
    model = FixedScores(np.tile(np.arange(5, 0, -1), (4, 1)))
    train = build([(0, 0), (0, 4), *((user, 0) for user in (1, 2, 3)), (3, 1)], **SHAPE)
    held_out = build([(0, 1), (1, 1), (2, 4), (3, 4)], **SHAPE)
    groups = UserGroups.from_names(["a", "a", "b", None])
    report = evaluate(model, train=train, held_out=held_out, ks=(1,), segments=groups)
    assert {name: m["recall@1"] for name, m in report.per_segment.items()} == {
        "a": 1.0,
        "b": 0.0,
        NO_SEGMENT: 0.0,
    }
    assert report.num_users_by_segment == {"a": 2, "b": 1, NO_SEGMENT: 1}
    assert report.overall["recall@1"] == 0.5
    assert model.told == {0: "a", 1: "a", 2: "b", 3: None}


def test_new_items_are_measured_alone_and_among_the_whole_catalogue():
    train = build([(0, 0), (1, 0), (1, 1)], **SHAPE)
    # User 0 wants 1 and the new 3, user 1 only the new 4, user 2 (a newcomer) the new 4.
    held_out = build([(0, 1), (0, 3), (1, 4), (2, 4)], **SHAPE)
    report = evaluate(DESCENDING, train=train, held_out=held_out, ks=(3,))
    assert report.num_users_by_segment == {NEWCOMERS: 1, NEW_ITEMS: 2}
    found = report.per_segment[NEW_ITEMS]
    assert found.keys() == report.per_segment[NEWCOMERS].keys()
    assert found["recall@3"] == 1.0  # 3 is third of 1, 2, 3; 4 is third of 2, 3, 4
    assert found["mrr@3"] == pytest.approx(1 / 3)
    assert found["precision@3"] == pytest.approx(1 / 3)
    assert report.overall["mrr@3"] == pytest.approx((1 + 1 / 3) / 2)


def test_without_new_items_there_is_no_slice_of_them():
    train = build([(0, 0), (1, 1)], **SHAPE)
    report = evaluate(DESCENDING, train=train, held_out=build([(0, 1)], **SHAPE), ks=(2,))
    assert NEW_ITEMS not in report.per_segment


def test_the_fairness_gap_is_between_the_best_and_the_worst_served_large_segment():
    shape = {"num_users": 7, "num_items": 5}
    model = FixedScores(np.tile(np.arange(5, 0, -1), (7, 1)))
    train = build([(user, 0) for user in range(7)], **shape)
    wanted = {0: 1, 1: 1, 2: 1, 3: 4, 4: 1, 5: 4, 6: 4}
    groups = UserGroups.from_names(["a", "a", "b", "b", "c", None, None])
    report = evaluate(
        model,
        train=train,
        held_out=build(wanted.items(), **shape),
        ks=(1,),
        segments=groups,
        min_segment_users=2,
    )
    assert report.fairness_gap["recall@1"] == 0.5  # a: 1, b: .5; c is small, the rest no segment
    assert report.fairness_gap.keys() == report.per_segment["a"].keys()
    assert (
        evaluate(
            model, train=train, held_out=build(wanted.items(), **shape), segments=groups
        ).fairness_gap
        == {}
    )  # nobody has 20 users


def test_users_are_asked_for_in_the_context_of_their_first_event_of_the_period():
    model = FixedScores(np.ones((4, 5)))
    pairs = [(0, 1), (0, 2), (0, 3), (1, 1), (2, 2)]
    train = build([(0, 0)], **SHAPE, context={"device": {(0, 0): "web"}})
    held_out = build(
        pairs,
        **SHAPE,
        last_at={(0, 1): 30, (0, 2): 10, (0, 3): 20, (1, 1): 5, (2, 2): 5},
        context={
            "device": {(0, 1): "app", (0, 2): "web", (0, 3): "app", (1, 1): "app"},
            "region": {(2, 2): "north"},
        },
    )
    evaluate(model, train=train, held_out=held_out, ks=(1,))
    assert model.contexts == {
        0: {"device": "web", "region": None},
        1: {"device": "app", "region": None},
        2: {"device": None, "region": "north"},
    }


def test_a_low_rating_is_not_relevant_and_no_rating_is():
    train = build([(0, 0)], **SHAPE)
    ratings = {(0, 1): 3.5, (0, 2): 4.0, (0, 3): math.nan}
    held_out = build(ratings, ratings=ratings, **SHAPE)
    report = evaluate(DESCENDING, train=train, held_out=held_out, ks=(1, 3))
    assert report.overall["recall@1"] == 0.0  # item 1 is first, but not liked
    assert report.overall["recall@3"] == 1.0
    lower = evaluate(DESCENDING, train=train, held_out=held_out, ks=(1,), min_rating=3.5)
    assert lower.overall["recall@1"] == pytest.approx(1 / 3)


def test_lists_are_described_beside_being_right():
    # Items 0 to 4 were had by 4, 2, 2, 1 and 0 users.
    train = build(
        [*((user, 0) for user in range(4)), (2, 1), (3, 1), (2, 2), (3, 2), (3, 3)], **SHAPE
    )
    # Users 0 and 1 are shown 4 and 3; popularity would show them 1 and 2.
    model = FixedScores(np.tile(np.arange(5), (4, 1)))
    catalog = pa.table({"categories": [["a"], ["a"], ["b"], ["b"], ["b"]]})
    report = evaluate(
        model,
        train=train,
        held_out=build([(0, 4), (1, 1)], **SHAPE),
        ks=(2,),
        catalog=catalog,
    ).overall
    assert report["serendipity@2"] == pytest.approx((1 / 2 + 0) / 2)
    assert report["novelty@2"] == pytest.approx(2.0)  # one user of four, or none
    assert report["popularity_lift@2"] == pytest.approx(0.5 / 4 - 1)  # shown: (0 + 1) / 2, had: 4
    assert report["gini@2"] == pytest.approx((2 * 0.5 + 4 * 0.5) / 4)
    assert report["intra_list_diversity@2"] == pytest.approx(0.0)
    assert report["calibration@2"] == pytest.approx(-math.log(0.01))  # a was had, only b is shown


def test_metrics_of_categories_need_a_catalogue_with_some():
    train, held_out = build([(0, 0)], **SHAPE), build([(0, 1)], **SHAPE)
    plain = pa.table({"item_id": list("abcde")})
    report = evaluate(DESCENDING, train=train, held_out=held_out, ks=(2,), catalog=plain).overall
    assert not any(name.startswith(("calibration", "intra_list")) for name in report)
    assert {"gini@2", "novelty@2", "serendipity@2", "popularity_lift@2"} <= report.keys()


@pytest.fixture(scope="module")
def rated():
    rng = np.random.default_rng(0)
    pairs = {(int(u), int(i)) for u, i in rng.integers(0, 15, (150, 2))}
    stars = {pair: float(rng.integers(1, 6)) for pair in sorted(pairs)}
    held = {(0, 20): 5.0, (20, 0): 1.0}  # an item and a user that nobody knows yet
    held |= {(int(u), int(i)): float(rng.integers(1, 6)) for u, i in rng.integers(0, 15, (40, 2))}
    shape = {"num_users": 21, "num_items": 21}
    weights = {pair: float(rng.uniform(1, 9)) for pair in held}
    train = build([*pairs, (16, 16)], ratings=stars, **shape)  # (16, 16) was never rated
    return train, build(held, ratings=held, weights=weights, **shape)


def vectors(num_users, num_items, num_factors=3, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(num_users, num_factors)),
        rng.normal(size=(num_items, num_factors)),
        rng.normal(size=num_items),
    )


@pytest.mark.parametrize("predicts", ["ratings", "weights"])
def test_errors_are_over_what_the_model_predicts_of_known_users_and_items(rated, predicts):
    train, held_out = rated
    model = factor_model(*vectors(21, 21), predicts=predicts, global_bias=3.0)
    report = evaluate(model, train=train, held_out=held_out)
    known = (held_out.user_indices < 15) & (held_out.item_indices < 15)
    predicted = model.predict(held_out.user_indices[known], held_out.item_indices[known])
    errors = predicted.astype(float) - getattr(held_out, predicts)[known]
    assert report.overall["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)
    assert report.overall["mae"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-5)
    assert report.num_ratings == known.sum() == len(held_out) - 2


def test_weights_are_predicted_for_unrated_pairs_and_ratings_are_not(rated):
    train, _ = rated
    held_out = build([(16, 0), (0, 16)], num_users=21, num_items=21)
    for predicts, expected in (("weights", 2), ("ratings", 0)):
        model = factor_model(*vectors(21, 21), predicts=predicts)
        report = evaluate(model, train=train, held_out=held_out)
        assert report.num_ratings == expected
        assert ("rmse" in report.overall) == ("mae" in report.overall) == (expected > 0)


def test_models_that_only_rank_have_no_error(rated):
    train, held_out = rated
    for model in (fit_popularity(train), factor_model(*vectors(21, 21))):
        report = evaluate(model, train=train, held_out=held_out)
        assert "rmse" not in report.overall
        assert report.num_ratings == 0


def test_nobody_to_measure_gives_nan_and_valid_json():
    train = build([(0, 0)], **SHAPE)
    catalog = pa.table({"categories": pa.array([None] * 5, pa.list_(pa.string()))})
    report = evaluate(
        DESCENDING, train=train, held_out=build([], **SHAPE), ks=(2,), catalog=catalog, intervals=3
    )
    assert report.num_users == 0
    assert math.isnan(report.overall["recall@2"])
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["overall"]["recall@2"] is None
    assert found["overall"]["coverage@2"] == 0.0
    assert {name for name, value in found["overall"].items() if value is not None} == {"coverage@2"}
    assert found["per_segment"] == {}
    assert found["confidence"]["recall@2"] == [None, None]


def test_lists_may_be_longer_than_the_catalogue():
    train, held_out = build([(0, 0)], **SHAPE), build([(0, 4)], **SHAPE)
    report = evaluate(DESCENDING, train=train, held_out=held_out, ks=(50,))
    assert report.overall["recall@50"] == 1.0
    assert report.overall["ndcg@50"] == pytest.approx(1 / math.log2(5))


pair_sets = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 7)))


@given(
    train_pairs=pair_sets,
    held_pairs=pair_sets,
    seed=st.integers(0, 99),
    batch_size=st.integers(1, 7),
    k=st.integers(1, 9),
)
@settings(deadline=None)
def test_the_report_equals_ten_naive_lines_in_any_batch_size(
    train_pairs, held_pairs, seed, batch_size, k
):
    shape = {"num_users": 6, "num_items": 8}
    scores = np.random.default_rng(seed).normal(size=(6, 8))
    train, held_out = build(train_pairs, **shape), build(held_pairs, **shape)
    before = [array.copy() for array in (train.item_indices, held_out.item_indices)]
    report = evaluate(
        FixedScores(scores), train=train, held_out=held_out, ks=(k,), batch_size=batch_size
    )
    recalls, listed = [], set()
    for user in range(6):
        had = {item for u, item in train_pairs if u == user}
        relevant = {item for u, item in held_pairs if u == user} - had
        if not (had and relevant):
            continue
        best = sorted(set(range(8)) - had, key=lambda item, user=user: -scores[user, item])[:k]
        recalls.append(len(set(best) & relevant) / len(relevant))
        listed |= set(best)
    assert report.num_users == len(recalls)
    expected = np.mean(recalls) if recalls else math.nan
    assert report.overall[f"recall@{k}"] == pytest.approx(expected, nan_ok=True)
    assert report.overall[f"coverage@{k}"] == len(listed) / 8
    for array, original in zip((train.item_indices, held_out.item_indices), before, strict=True):
        np.testing.assert_array_equal(array, original)


@pytest.fixture(scope="module")
def shop():
    """70 users in two segments, three contexts and 90 items; some users and items are new."""
    rng = np.random.default_rng(3)
    pairs = {(u, i) for u, i in rng.integers((0, 0), (60, 80), (900, 2)).tolist()}
    later = {(u, i) for u, i in rng.integers((0, 0), (70, 90), (500, 2)).tolist()} - pairs
    shape = {"num_users": 70, "num_items": 90}
    contexts = {"device": {p: ["web", "app"][sum(p) % 2] for p in later if sum(p) % 3}}
    return {
        "train": build(pairs, **shape),
        "held_out": build(later, **shape, context=contexts),
        "segments": UserGroups.from_names(["ab"[user % 2] for user in range(70)]),
        "catalog": pa.table({"categories": [["xyz"[i % 3], "uv"[i % 2]] for i in range(90)]}),
    }


def hybrid(seed=0):
    """Whole numbers, so that scores are exact however a product is cut into blocks."""
    rng = np.random.default_rng(seed)
    features = {
        "segment": (("a", "b"), rng.integers(-2, 3, (2, 4)).astype(np.float32)),
        "device": (("app", "web"), rng.integers(-2, 3, (2, 4)).astype(np.float32)),
    }
    return factor_model(
        rng.integers(-2, 3, (70, 4)),
        rng.integers(-2, 3, (90, 4)),
        rng.integers(-1, 2, 90),
        features=RequestFeatures(num_factors=4, columns=features),
    )


class ScoresOnly:
    """The same model without its factors."""

    def __init__(self, model):
        self._model = model
        self.num_items = model.num_items

    def score(self, batch: UserBatch):
        return self._model.score(batch)


def test_factors_are_measured_as_their_scores_are(shop):
    model = hybrid()
    report = evaluate(model, **shop, intervals=10).to_dict()
    assert report == evaluate(ScoresOnly(model), **shop, intervals=10).to_dict()
    assert 0 < report["overall"]["recall@20"] < 1
    assert report["num_users_by_segment"].keys() == {"a", "b", NEWCOMERS, NEW_ITEMS}
    assert report["fairness_gap"]["ndcg@10"] > 0


def test_blocks_of_users_change_no_figure(shop, monkeypatch):
    whole = evaluate(hybrid(), **shop).to_dict()
    monkeypatch.setattr(list_quality_module, "_USERS_AT_ONCE", 7)
    monkeypatch.setattr(lists_module, "_FACTOR_BATCH", 13)
    blocked = evaluate(hybrid(), **shop).to_dict()
    for name, value in whole["overall"].items():
        assert blocked["overall"][name] == pytest.approx(value, rel=1e-12)
    assert blocked["per_segment"] == whole["per_segment"]


def test_intervals_are_those_of_the_bootstrap_and_hold_the_mean(shop):
    report = evaluate(hybrid(), **shop, ks=(10,), intervals=200, seed=4)
    assert report.confidence.keys() == {
        f"{name}@10" for name in ("recall", "ndcg", "map", "mrr", "precision", "hit_rate")
    }
    for name, (low, high) in report.confidence.items():
        assert low < report.overall[name] < high
    again = evaluate(hybrid(), **shop, ks=(10,), intervals=200, seed=4)
    assert again.confidence == report.confidence
    other = evaluate(hybrid(), **shop, ks=(10,), intervals=200, seed=5)
    assert other.confidence != report.confidence
    assert evaluate(hybrid(), **shop).confidence == {}


def test_the_interval_of_one_user_in_two_follows_from_the_draws():
    train = build([(0, 0), (1, 0)], **SHAPE)
    held_out = build([(0, 1), (1, 4)], **SHAPE)  # a hit and a miss
    report = evaluate(DESCENDING, train=train, held_out=held_out, ks=(1,), intervals=50)
    ((low, high),) = bootstrap_intervals(np.array([[1.0], [0.0]]), num_resamples=50)
    assert report.confidence["recall@1"] == (low, high)


def test_comparing_two_models_gives_the_difference_of_their_reports(shop):
    split = {name: shop[name] for name in ("train", "held_out", "segments")}
    first, second = (measure_per_user(hybrid(seed), **split, ks=(5,)) for seed in (0, 1))
    reports = [evaluate(hybrid(seed), **split, ks=(5,)) for seed in (0, 1)]
    for name in first.by_metric:
        difference = compare(first, second, name, num_resamples=100)
        expected = reports[0].overall[name] - reports[1].overall[name]
        assert difference.mean == pytest.approx(expected)
        assert difference.low < difference.mean < difference.high
        for segment, inside_B in first.slices.items():
            difference = compare(first, second, name, inside_B=inside_B, num_resamples=10)
            ours, theirs = (report.per_segment[segment][name] for report in reports)
            assert difference.mean == pytest.approx(ours - theirs)
    nothing = compare(first, first, "recall@5", num_resamples=10)
    assert (nothing.low, nothing.mean, nothing.high) == (0.0, 0.0, 0.0)


def test_models_of_different_periods_are_not_compared(shop):
    split = {name: shop[name] for name in ("train", "held_out")}
    first = measure_per_user(
        DESCENDING, train=build([], **SHAPE), held_out=build([(0, 1)], **SHAPE)
    )
    second = measure_per_user(hybrid(), **split)
    with pytest.raises(ValueError, match="different users"):
        compare(first, second, "recall@10")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ks": ()}, "ks is"),
        ({"ks": (0, 5)}, "ks is"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"intervals": -1}, "intervals is -1"),
        ({"held_out": build([], num_users=4, num_items=6)}, "number of items: \\[5, 6\\]"),
        ({"held_out": build([], num_users=3, num_items=5)}, "number of users: \\[3, 4\\]"),
        ({"segments": UserGroups.from_names(["a"])}, "number of users: \\[1, 4\\]"),
        ({"catalog": pa.table({"categories": [["a"]]})}, "number of items: \\[1, 5\\]"),
    ],
)
def test_wrong_arguments_are_named(changes, says):
    arguments = {"train": build([(0, 0)], **SHAPE), "held_out": build([(0, 1)], **SHAPE)} | changes
    with pytest.raises(ValueError, match=says):
        evaluate(DESCENDING, **arguments)
