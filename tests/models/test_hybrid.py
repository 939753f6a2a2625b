"""Hybrids in worlds whose answers follow from what users, items and visits are."""

import numpy as np
import pyarrow as pa
import pytest

from perso.data.groups import UserGroups
from perso.models.factors import FactorModel
from perso.models.feature_columns import FeatureColumn
from perso.models.hybrid import HybridConfig, fit_hybrid
from perso.models.protocol import UserBatch, WeightedItems
from perso.models.side_data import SideData

# Items 0 to 11 are lamps, 12 to 23 mugs; the last of each has no interactions.
KINDS = ["lamp"] * 12 + ["mug"] * 12
NEW_LAMP, NEW_MUG = 11, 23
NUM_ITEMS = 24


def _config(**settings):
    """Worlds this small take few steps; features take whole ones."""
    small = {"num_factors": 8, "epochs": 30, "batch_size": 64, "feature_rate": 1.0}
    return HybridConfig(**small | settings)


def _lamps_and_mugs(build, *, num_users=60, context=None, seed=0):
    """Even users have 5 of 11 lamps, odd ones 5 of 11 mugs; the last two users have nothing."""
    rng = np.random.default_rng(seed)
    pairs = [
        (user, item)
        for user in range(num_users - 2)
        for item in sorted((rng.permutation(11)[:5] + 12 * (user % 2)).tolist())
    ]
    columns = {
        name: [value(user, item) for user, item in pairs] for name, value in (context or {}).items()
    }
    return build(pairs, num_users=num_users, num_items=NUM_ITEMS, context=columns)


def _kinds():
    return pa.table({"kind": KINDS})


def _order(model, user, *, segment=None, **context):
    scores = model.score(
        UserBatch(
            user_indices=np.array([user]),
            segment_names=(segment,),
            context={name: [value] for name, value in context.items()},
        )
    )
    return np.argsort(-scores[0], kind="stable").tolist()


def _first_kind(model, user, **known):
    """Whether lamps or mugs fill the first five places."""
    kinds = {KINDS[item] for item in _order(model, user, **known)[:5]}
    return kinds.pop() if len(kinds) == 1 else "both"


@pytest.mark.parametrize("feature_dropout", [0.0, 0.3])
@pytest.mark.parametrize(
    "column",
    [
        pa.array(KINDS),
        pa.array([[kind, "all"] for kind in KINDS]),
        pa.array([1.0 + item // 12 for item in range(NUM_ITEMS)]),
        pa.array([[float(k == "lamp"), float(k == "mug"), 0.5] for k in KINDS]),
    ],
    ids=["category", "tags", "number", "vector"],
)
def test_a_new_item_comes_before_all_of_the_other_taste(build, column, feature_dropout):
    side = SideData(item_features=pa.table({"kind": column}))
    model = fit_hybrid(_lamps_and_mugs(build), side, _config(feature_dropout=feature_dropout))
    for user in range(10):
        new = NEW_LAMP if user % 2 == 0 else NEW_MUG
        order = _order(model, user)
        strangers = range(12, 24) if user % 2 == 0 else range(12)
        assert order.index(new) < min(order.index(item) for item in strangers)


def test_a_new_item_is_found_by_the_words_of_its_title(build):
    rng = np.random.default_rng(0)
    colours = rng.choice(["red", "blue", "green"], NUM_ITEMS)
    titles = [f"{c} {kind} no {i}" for i, (c, kind) in enumerate(zip(colours, KINDS, strict=True))]
    side = SideData(item_features=pa.table({"title": titles}))
    model = fit_hybrid(_lamps_and_mugs(build), side, _config(feature_dropout=0.3))
    assert "lamp" in model.item_encoder.columns.columns[0].values
    for user in range(10):
        order = _order(model, user)
        new, other = (NEW_LAMP, NEW_MUG) if user % 2 == 0 else (NEW_MUG, NEW_LAMP)
        assert order.index(new) < order.index(other)


def test_without_features_a_new_item_has_no_signal(build):
    model = fit_hybrid(_lamps_and_mugs(build), SideData(), _config())
    assert np.flatnonzero(~model.has_signal_I).tolist() == [NEW_LAMP, NEW_MUG]
    assert not {NEW_LAMP, NEW_MUG} & set(_order(model, 0)[:11])


def test_a_new_user_gets_what_the_region_likes(build):
    region = {"region": lambda user, item: ("north", "south")[user % 2]}
    model = fit_hybrid(_lamps_and_mugs(build, context=region), SideData(), _config())
    for stranger in (-1, 58):
        assert _first_kind(model, stranger, region="north") == "lamp"
        assert _first_kind(model, stranger, region="south") == "mug"


def test_a_new_user_gets_what_the_segment_likes(build):
    segments = UserGroups.from_names([("homely", "thirsty")[user % 2] for user in range(60)])
    side = SideData(segments=segments)
    model = fit_hybrid(_lamps_and_mugs(build), side, _config())
    assert _first_kind(model, -1, segment="homely") == "lamp"
    assert _first_kind(model, -1, segment="thirsty") == "mug"
    deaf = fit_hybrid(_lamps_and_mugs(build), side, _config(use_segments=False))
    assert deaf.request_features.columns == {}


def test_a_new_user_gets_what_users_with_the_same_attributes_like(build):
    features = pa.table({"age": [20.0 + 40 * (user % 2) for user in range(60)]})
    side = SideData(user_features=features)
    model = fit_hybrid(_lamps_and_mugs(build), side, _config())
    assert (_first_kind(model, 58), _first_kind(model, 59)) == ("lamp", "mug")
    outside = model.user_encoder.encode(pa.table({"age": [60.0, 20.0]})).vectors_ND
    np.testing.assert_allclose(outside, model.user_factors_UD[[59, 58]], rtol=1e-5)


def test_the_hour_turns_the_list_of_one_user(build):
    """Everybody has lamps in the morning and mugs in the evening."""
    rng = np.random.default_rng(0)
    pairs, hours = [], []
    for user in range(60):
        for item in (*rng.permutation(11)[:4], *(rng.permutation(11)[:4] + 12)):
            pairs.append((user, int(item)))
            hours.append("morning" if item < 12 else "evening")
    interactions = build(pairs, num_users=60, num_items=NUM_ITEMS, context={"daypart": hours})
    model = fit_hybrid(interactions, SideData(), _config())
    for user in range(10):
        assert _first_kind(model, user, daypart="morning") == "lamp"
        assert _first_kind(model, user, daypart="evening") == "mug"
    deaf = fit_hybrid(interactions, SideData(), _config(context=()))
    assert _order(deaf, 0, daypart="morning") == _order(deaf, 0, daypart="evening")


def test_a_score_is_the_dot_product_of_what_is_exported(build):
    region = {"region": lambda user, item: ("north", "south")[user % 2]}
    segments = UserGroups.from_names([("homely", "thirsty")[user % 2] for user in range(60)])
    side = SideData(segments=segments, item_features=_kinds())
    model = fit_hybrid(_lamps_and_mugs(build, context=region), side, _config())
    columns = model.request_features.columns
    asked = {"region": "south", "segment": "homely"}
    user_D = model.user_factors_UD[3].astype(np.float64)
    for column, value in asked.items():
        names, vectors_SD = columns[column]
        user_D = user_D + vectors_SD[names.index(value)]
    scores_I = model.item_factors_ID @ user_D + model.item_bias_I
    batch = UserBatch(
        user_indices=np.array([3]), segment_names=("homely",), context={"region": ["south"]}
    )
    np.testing.assert_allclose(model.score(batch)[0], scores_I, rtol=1e-4, atol=1e-5)


def test_a_strangers_whole_history_gives_the_trained_vector(build):
    """In the contexts of training; the vector explains only what the contexts do not."""
    region = {"region": lambda user, item: ("north", "south")[user % 2]}
    interactions = _lamps_and_mugs(build, context=region)
    side = SideData(item_features=_kinds())
    model = fit_hybrid(interactions, side, _config(affinities=()))
    for user in (0, 1, 7):
        rows = interactions.user_indices == user
        recent = WeightedItems(
            item_indices=interactions.item_indices[rows].astype(np.int64),
            weights=interactions.weights[rows].astype(np.float64),
            ratings=np.full(int(rows.sum()), np.nan),
        )
        where = ("north", "south")[user % 2]
        offset_D = model.request_features.vector({"region": where})
        folded_D = model.encoder.solve(model, -1, recent, offset_D)
        np.testing.assert_allclose(folded_D, model.user_factors_UD[user], rtol=1e-3, atol=1e-4)


def test_affinities_hold_a_user_at_what_the_history_shares(build):
    interactions = _lamps_and_mugs(build)
    side = SideData(item_features=_kinds())
    plain, told = (
        fit_hybrid(interactions, side, _config(affinities=names)) for names in ((), ("kind",))
    )
    kind_gap = []
    for model in (plain, told):
        scores = model.score(UserBatch(user_indices=np.array([0])))[0]
        kind_gap.append(scores[:12].mean() - scores[12:].mean())
    assert kind_gap[1] > kind_gap[0]


def test_a_catalogue_row_alone_gives_the_vector_of_a_new_item(build, tmp_path):
    side = SideData(item_features=_kinds())
    model = fit_hybrid(_lamps_and_mugs(build), side, _config())
    model.save(tmp_path)
    loaded = FactorModel.load(tmp_path)
    rows = loaded.item_encoder.encode(pa.table({"kind": ["mug", "lamp", "sofa"], "x": [1, 2, 3]}))
    np.testing.assert_allclose(
        rows.vectors_ND[:2], model.item_factors_ID[[NEW_MUG, NEW_LAMP]], rtol=1e-5
    )
    np.testing.assert_allclose(rows.bias_N[:2], model.item_bias_I[[NEW_MUG, NEW_LAMP]], rtol=1e-5)
    assert not rows.vectors_ND[2].any()  # of a sofa nothing is known: it comes last
    assert rows.bias_N[2] < model.item_bias_I.min()


def test_a_saved_model_scores_alike(build, tmp_path):
    region = {"region": lambda user, item: ("north", "south")[user % 2]}
    side = SideData(item_features=_kinds(), user_features=pa.table({"age": np.arange(60.0) % 7}))
    model = fit_hybrid(_lamps_and_mugs(build, context=region), side, _config())
    model.save(tmp_path)
    loaded = FactorModel.load(tmp_path)
    batch = UserBatch(user_indices=np.array([0, 1, -1]), context={"region": ["north"] * 3})
    np.testing.assert_array_equal(loaded.score(batch), model.score(batch))
    assert loaded.user_encoder.columns == model.user_encoder.columns


@pytest.mark.parametrize("loss", ["softmax", "contrasted", "bpr", "logistic"])
def test_the_same_seed_gives_the_same_model_under_every_loss(build, loss):
    side = SideData(item_features=_kinds())
    interactions = _lamps_and_mugs(build)
    one, same, other = (
        fit_hybrid(interactions, side, _config(loss=loss, seed=seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.user_factors_UD, same.user_factors_UD)
    np.testing.assert_array_equal(one.item_factors_ID, same.item_factors_ID)
    assert not np.array_equal(one.item_factors_ID, other.item_factors_ID)
    assert _first_kind(one, 0) == "lamp"


def test_early_stopping_and_context_go_together(build):
    region = {"region": lambda user, item: ("north", "south")[user % 2]}
    interactions = _lamps_and_mugs(build, context=region)
    model = fit_hybrid(interactions, SideData(item_features=_kinds()), _config(patience=2))
    assert _first_kind(model, -1, region="south") == "mug"


def test_items_of_later_periods_do_not_decide_what_a_feature_value_is(build):
    kinds = [*KINDS[:11], "sofa", *KINDS[12:23], "sofa"]
    side = SideData(item_features=pa.table({"kind": kinds}))
    config = _config(item_columns=(FeatureColumn(column="kind", kind="category", min_count=1),))
    model = fit_hybrid(_lamps_and_mugs(build), side, config)
    assert model.item_encoder.columns.columns[0].values == ("lamp", "mug")


def test_values_of_too_few_users_do_not_speak_for_a_visit(build):
    region = {"region": lambda user, item: "rare" if user < 2 else ("north", "south")[user % 2]}
    model = fit_hybrid(_lamps_and_mugs(build, context=region), SideData(), _config())
    assert model.request_features.columns["region"][0] == ("north", "south")


def test_what_does_not_exist_is_refused_by_name(build):
    interactions = _lamps_and_mugs(build, context={"region": lambda user, item: "north"})
    colour = FeatureColumn(column="colour", kind="category")
    side = SideData(item_features=_kinds())
    with pytest.raises(ValueError, match=r"no column 'colour'.*\['kind'\]"):
        fit_hybrid(interactions, side, _config(item_columns=(colour,)))
    with pytest.raises(ValueError, match=r"\['colour'\], but there are no features of users"):
        fit_hybrid(interactions, side, _config(user_columns=(colour,)))
    with pytest.raises(ValueError, match=r"no context column 'moon'.*\['region'\]"):
        fit_hybrid(interactions, side, _config(context=("moon",)))
    with pytest.raises(ValueError, match="features of 1 items, but there are 24"):
        fit_hybrid(interactions, SideData(item_features=_kinds().slice(0, 1)), _config())
    segments = UserGroups.from_names(["homely"])
    with pytest.raises(ValueError, match="1 users have a segment, but there are 60"):
        fit_hybrid(interactions, SideData(segments=segments), _config())
    with pytest.raises(ValueError, match="no interactions to train on"):
        fit_hybrid(interactions.take(np.zeros(len(interactions), bool)), side, _config())


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"feature_dropout is 1\.0"):
        HybridConfig(feature_dropout=1.0)
    with pytest.raises(ValueError, match=r"feature_rate is 0\.0"):
        HybridConfig(feature_rate=0.0)
    with pytest.raises(ValueError, match="num_factors is 0"):
        HybridConfig(num_factors=0)
    with pytest.raises(ValueError, match="loss is 'squared'"):
        HybridConfig(loss="squared")
