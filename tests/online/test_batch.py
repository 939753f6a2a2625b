"""Lists of everybody: those that the ranker would give each of them, one by one."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from perso.data.groups import UserGroups
from perso.models.feature_columns import FeatureColumn, FittedColumn, FittedColumns
from perso.models.feature_encoder import FeatureEncoder
from perso.models.history import History
from perso.models.item_knn import ItemKnnModel
from perso.models.nearest_items import NearestItems
from perso.models.request_features import RequestFeatures
from perso.online import batch as batch_module
from perso.online.audience import Audience
from perso.online.batch import BatchRecommender
from perso.online.live import LiveRecommender, Question
from perso.online.ranking import Query, Ranker
from perso.online.strategies import StrategyRule, StrategySpec
from perso.schema import RECOMMENDATION_SCHEMA
from perso.stream.event_log import EventLog

RULES = StrategySpec(
    rules=(
        StrategyRule(name="push", segments=("loyal",), categories=("c1",), boost=1.5),
        StrategyRule(name="own", clusters=("c01",), top_categories=True, boost=0.75),
        StrategyRule(name="less", segments=("new",), price="higher", boost=-1.0),
    )
)


def with_request_features(crowd):
    """The model has learned what the segment ``loyal`` likes."""
    features = RequestFeatures(
        num_factors=4,
        columns={"segment": (("loyal",), np.array([[1, -0.5, 0.25, 2]], np.float32))},
    )
    model = dataclasses.replace(crowd.model, request_features=features)
    return dataclasses.replace(crowd, model=model)


def with_attributes(crowd):
    """The model has learned what the cluster ``c01`` likes."""
    clusters = FittedColumn(spec=FeatureColumn(column="cluster", kind="category"), values=("c01",))
    encoder = FeatureEncoder(
        columns=FittedColumns(columns=(clusters,)),
        vectors_SD=np.array([[2, 0, 0, -1]], np.float32),
        bias_S=np.zeros(1, np.float32),
        base_bias=0.0,
        unknown_bias=0.0,
    )
    model = dataclasses.replace(with_request_features(crowd).model, user_encoder=encoder)
    return dataclasses.replace(crowd, model=model)


def with_neighbours(crowd):
    """Each item goes with the two behind it, but for the last three, which go with none."""
    num_items = len(crowd.items)
    rows = [[n + 1, n + 2] if n < num_items - 3 else [] for n in range(num_items)]
    flat = [item for row in rows for item in row]
    model = ItemKnnModel(
        nearest=NearestItems(
            indptr_I1=np.cumsum([0, *map(len, rows)]),
            item_indices=np.array(flat, np.int32),
            similarities=np.array([0.5, 0.25] * (len(flat) // 2), np.float32),
        ),
        history=History(
            indptr_U1=crowd.seen.indptr_U1,
            item_indices=crowd.seen.item_indices,
            weights=np.ones(len(crowd.seen.item_indices), np.float32),
        ),
        popularity_I=crowd.popularity.global_scores_I,
        recent_boost=10.0,
    )
    return dataclasses.replace(crowd, model=model)


def audience_of(bundle, users=None):
    """Segments, clusters and categories in turns of different lengths, so that all mixes occur."""
    everybody = range(len(bundle.users))
    segments = [(None, "loyal", "new", "unheard of", None)[n % 5] for n in everybody]
    clusters = [("c01", None, "c02", None)[n // 2 % 4] for n in everybody]
    categories = [(["c0"], ["c1", "c2"], None)[n // 3 % 3] for n in everybody]
    return Audience.of(
        np.arange(len(bundle.users)) if users is None else np.array(users, np.int64),
        segments=UserGroups.from_names(segments),
        attributes=pa.table(
            {
                "cluster": pa.array(clusters, pa.string()),
                "top_categories": pa.array(categories, pa.list_(pa.string())),
            }
        ),
    )


def one_by_one(bundle, audience, k, strategies=None):
    """The slow truth: one question a user."""
    ranker = Ranker(bundle, strategies=strategies)
    rows = []
    for place, user in enumerate(audience.user_indices_B.tolist()):
        query = Query(
            k=k,
            user_index=user,
            segment=audience.segment_of(place),
            attributes=audience.attributes.slice(place, 1).to_pylist()[0],
        )
        rows += [
            {
                "user_id": bundle.users.id_of(user),
                "rank": rank,
                "item_id": bundle.items.id_of(item.item_index),
                "score": item.score,
                "source": item.source,
                "segment": audience.segment_of(place),
                "model_version": "7",
            }
            for rank, item in enumerate(ranker.recommend(query), 1)
        ]
    return rows


WORLDS = {
    "factors": lambda crowd: crowd,
    "request features": with_request_features,
    "attributes": with_attributes,
    "item_knn": with_neighbours,
}


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("strategies", [None, RULES], ids=["plain", "rules"])
@pytest.mark.parametrize("world", WORLDS)
def test_a_batch_holds_what_each_user_would_be_answered(crowd, world, strategies, k, monkeypatch):
    monkeypatch.setattr(batch_module, "_SCORE_BYTES", 900)  # several blocks of rows
    bundle = WORLDS[world](crowd)
    audience = audience_of(bundle)
    table = BatchRecommender("7", bundle, strategies=strategies).lists(audience, k=k)
    expected = one_by_one(bundle, audience, k, strategies)
    assert table.to_pylist() == expected
    sources = {row["source"] for row in expected}
    assert {"personal", "segment_popular", "global_popular"} <= sources or k == 1


def test_rules_move_lists(crowd):
    """Else the parity above would say nothing of them."""
    audience = audience_of(crowd)
    plain, moved = (
        BatchRecommender("7", crowd, strategies=rules).lists(audience, k=5)
        for rules in (None, RULES)
    )
    differing = {
        (a["segment"], a["user_id"])
        for a, b in zip(plain.to_pylist(), moved.to_pylist(), strict=True)
        if a["item_id"] != b["item_id"]
    }
    assert {segment for segment, _ in differing} >= {"loyal", "new", None}


def test_the_service_answers_the_same_to_a_user_without_news(crowd, tmp_path):
    from datetime import UTC, datetime

    live = LiveRecommender(EventLog(tmp_path / "log.sqlite"))
    live.serve("7", crowd)
    audience = audience_of(crowd)
    rows = BatchRecommender("7", crowd).lists(audience, k=5).to_pylist()
    for place in range(len(audience)):
        user_id = crowd.users.id_of(place)
        question = Question(user_id=user_id, k=5, segment=audience.segment_of(place))
        answer = live.recommend(question, now=datetime(2026, 3, 1, tzinfo=UTC))
        mine = [row for row in rows if row["user_id"] == user_id]
        assert [row["item_id"] for row in mine] == [item.item_id for item in answer.items]
        assert [row["source"] for row in mine] == [item.source for item in answer.items]


def test_neighbours_in_a_part_change_nobodys_list(crowd):
    recommender = BatchRecommender("7", crowd, strategies=RULES)
    audience = audience_of(crowd)
    whole = recommender.lists(audience, k=6)
    parts = [recommender.lists(audience.rows(n, n + 17), k=6) for n in range(0, 60, 17)]
    assert pa.concat_tables(parts).to_pylist() == whole.to_pylist()
    some = recommender.lists(audience_of(crowd, users=[3, 14, 50]), k=6)
    wanted = {crowd.users.id_of(user) for user in (3, 14, 50)}
    assert some.to_pylist() == [row for row in whole.to_pylist() if row["user_id"] in wanted]


def test_a_part_carries_the_names_it_uses_and_no_vocabulary(crowd):
    table = BatchRecommender("7", crowd).lists(audience_of(crowd, users=[4]), k=3)
    assert len(table["user_id"].chunk(0).dictionary) == 1
    assert len(table["item_id"].chunk(0).dictionary) == 3


def test_nobody_gets_an_empty_table_with_the_schema(crowd):
    table = BatchRecommender("7", crowd).lists(audience_of(crowd, users=[]), k=3)
    assert (len(table), table.column_names) == (0, RECOMMENDATION_SCHEMA.names)


def test_a_list_without_places_is_refused(crowd):
    with pytest.raises(ValueError, match="k is 0"):
        BatchRecommender("7", crowd).lists(audience_of(crowd), k=0)
