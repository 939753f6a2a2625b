"""Who may serve: the artifact that would, against popularity and against what serves now."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from perso.data.groups import UserGroups
from perso.data.vocabulary import Vocabulary
from perso.evaluation.report import EvaluationReport
from perso.models.baskets import cut_baskets
from perso.models.bundle import load_bundle, save_bundle
from perso.models.item_knn import fit_item_knn
from perso.models.knn_config import ItemKnnConfig
from perso.models.popularity import fit_popularity
from perso.models.related_items import fit_bought_together
from perso.models.seen import SeenItems
from perso.models.side_data import SideData
from perso.tuning.gate import GateSpec
from perso.tuning.trial import measure
from perso.tuning.verdict import Baseline, judge, measure_popularity

UNMEASURED = EvaluationReport(
    overall={}, per_segment={}, num_users=0, num_users_by_segment={}, num_ratings=0
)


@pytest.fixture
def fans_and_crowd(build):
    """Makes 40 fans who each had 4 of the 10 niche items, and a crowd of 30 who had the 3 hits.

    Later the fans take either the rest of the niche or the hits.
    """

    def fans_and_crowd(*, fans_go_on):
        niche, hits = set(range(10, 20)), {0, 1, 2}
        had = {fan: {10 + (fan + step) % 10 for step in range(4)} for fan in range(40)}
        known = {(fan, item) for fan, items in had.items() for item in items}
        known |= {(user, item) for user in range(40, 70) for item in hits}
        later = {(f, i) for f in had for i in (niche - had[f] if fans_go_on else hits)}
        segments = UserGroups.from_names(["fans"] * 40 + ["crowd"] * 30)
        shape = {"num_users": 70, "num_items": 20}
        return build(known, **shape), build(later, **shape), segments

    return fans_and_crowd


@pytest.mark.parametrize(
    ("fans_go_on", "kind", "others"), [(True, "segment", "global"), (False, "global", "segment")]
)
def test_the_baseline_is_the_better_of_global_and_segment_popularity(
    search, fans_and_crowd, fans_go_on, kind, others
):
    known, held_out, segments = fans_and_crowd(fans_go_on=fans_go_on)
    period = {"known": known, "held_out": held_out, "side": SideData(segments=segments)}
    models = {"global": fit_popularity(known), "segment": fit_popularity(known, segments)}
    reports = {name: measure(model, search(), **period) for name, model in models.items()}
    assert reports[kind].overall["ndcg@5"] == 1 > reports[others].overall["ndcg@5"]
    baseline = measure_popularity(models["segment"], search(), **period)
    assert baseline == Baseline(kind=kind, report=reports[kind])
    assert baseline.name == f"{kind} popularity"


def test_without_segments_or_without_a_difference_the_baseline_is_global_popularity(
    search, fans_and_crowd
):
    known, held_out, _ = fans_and_crowd(fans_go_on=True)
    everyone = UserGroups.from_names(["everyone"] * 70)
    for segments in (None, everyone):
        found = measure_popularity(
            fit_popularity(known, segments),
            search(),
            known=known,
            held_out=held_out,
            side=SideData(segments=segments),
        )
        assert found.kind == "global"


@pytest.fixture
def bundle_of(dataset, tmp_path):
    """Saves a bundle of a model: what belongs to it, and its vocabularies, are the dataset's."""

    def bundle_of(model, name="bundle", **changes):
        known = dataset.interactions("train", "validation")
        parts = {
            "users": dataset.users,
            "items": dataset.items,
            "model": model,
            "popularity": fit_popularity(known),
            "catalog": dataset.catalog(),
            "seen": SeenItems.from_interactions(known),
            "bought_together": fit_bought_together(cut_baskets(known)),
            "trained_until": dataset.split_end("validation"),
            "created_at": dataset.split_end("test"),
        }
        return save_bundle(tmp_path / name, data_key="k", spec={}, metrics={}, **(parts | changes))

    return bundle_of


@pytest.fixture
def judged(dataset):
    """What the gate says of a bundle, against a champion."""

    def judged(challenger, *, champion=None, **gate):
        known = dataset.interactions("train", "validation")
        segments = UserGroups.from_names(["even", "odd"] * 20)
        gate = {"min_segment_users": 20} | gate
        return judge(
            GateSpec(**gate),
            challenger,
            metric="ndcg@5",
            ks=(5, 10),
            min_rating=4.0,
            baseline=Baseline(kind="global", report=UNMEASURED),
            champion=champion,
            users=dataset.users,
            items=dataset.items,
            known=known,
            held_out=dataset.interactions("test"),
            side=SideData(segments=segments, item_features=dataset.catalog()),
            starts_at=dataset.split_end("validation"),
        )

    return judged


@pytest.fixture
def good(dataset):
    return fit_item_knn(dataset.interactions("train", "validation"))


@pytest.fixture
def poor(good, dataset):
    """Of one neighbour each, and those of a tenth of the train period's pairs."""
    train = dataset.interactions("train")
    return fit_item_knn(train.take(np.arange(0, len(train), 10)), ItemKnnConfig(num_neighbors=1))


def failed(judgement):
    return [check.name for check in judgement.verdict.checks if not check.passed]


def test_who_beats_popularity_is_the_first_champion(bundle_of, judged, good):
    judgement = judged(bundle_of(good), floors={"coverage@10": 0.5})
    assert judgement.verdict.promoted
    assert judgement.incumbent is None
    assert [check.name for check in judgement.verdict.checks] == [
        "beats global popularity",
        "no segment loses",
        "floor of coverage@10",
        "artifact answers",
    ]
    assert "global popularity's" in judgement.verdict.reason


def test_a_better_challenger_replaces_the_champion(bundle_of, judged, good, poor, dataset):
    judgement = judged(bundle_of(good), champion=("3", bundle_of(poor, "champion")))
    assert judgement.verdict.promoted
    assert "version 3's" in judgement.verdict.reason
    assert judgement.incumbent.version == "3"
    assert 0 < judgement.incumbent.report.overall["ndcg@5"] < 1
    assert judgement.incumbent.trained_until == dataset.split_end("validation")


def test_a_model_does_not_replace_itself_nor_what_is_better(bundle_of, judged, good, poor):
    same = judged(bundle_of(good), champion=("3", bundle_of(good, "champion")))
    assert failed(same) == ["beats version 3"]
    assert same.verdict.reason.startswith("not promoted, version 3 goes on serving: ")
    worse = judged(bundle_of(poor, "poor"), champion=("3", bundle_of(good, "better")))
    assert {"beats version 3", "no segment loses"} <= set(failed(worse))


def test_a_missed_floor_alone_keeps_the_champion(bundle_of, judged, good):
    judgement = judged(bundle_of(good), floors={"coverage@5": 1.5})
    assert failed(judgement) == ["floor of coverage@5"]
    assert "no model serves yet" in judgement.verdict.reason
    assert "coverage@5 is 1.0000, asked is at least 1.5" in judgement.verdict.reason


def test_a_damaged_artifact_is_not_promoted(bundle_of, judged, good):
    folder = bundle_of(good)
    array = folder / "seen" / "item_indices.npy"
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(bytes(content))
    judgement = judged(folder)
    assert failed(judgement) == ["artifact answers"]
    assert "does not match its checksum" in judgement.verdict.reason


def test_an_artifact_without_finite_scores_is_not_promoted(bundle_of, judged, good):
    broken = replace(good, popularity_I=np.full(good.num_items, np.nan, np.float32))
    judgement = judged(bundle_of(broken))
    assert "artifact answers" in failed(judgement)
    check = judgement.verdict.checks[-1]
    assert "no numbers" in check.reason


def test_a_champion_of_another_dataset_is_asked_by_ids(bundle_of, judged, good, dataset):
    """It knows the same users and items under other rows, and does as well as itself."""
    backwards = {
        "users": Vocabulary(pa.array(dataset.users.ids.to_pylist()[::-1])),
        "items": Vocabulary(pa.array(dataset.items.ids.to_pylist()[::-1])),
        "catalog": dataset.catalog()[::-1],
    }
    known = dataset.interactions("train", "validation")
    turned = known.take(np.arange(len(known))[::-1])
    turned = replace(
        turned,
        user_indices=known.num_users - 1 - turned.user_indices,
        item_indices=known.num_items - 1 - turned.item_indices,
    )
    elsewhere = bundle_of(
        fit_item_knn(turned),
        "elsewhere",
        **backwards,
        popularity=fit_popularity(turned),
        seen=SeenItems.from_interactions(turned),
        bought_together=fit_bought_together(cut_baskets(turned)),
    )
    here = judged(bundle_of(good), champion=("3", bundle_of(good, "here")))
    there = judged(bundle_of(good, "again"), champion=("3", elsewhere))
    assert there.incumbent.report.overall["ndcg@5"] == pytest.approx(
        here.incumbent.report.overall["ndcg@5"], abs=0.001
    )
    assert there.incumbent.report.num_users == here.incumbent.report.num_users


def test_a_champion_that_saw_the_test_period_is_said_to_be_flattered(
    bundle_of, judged, good, poor, dataset
):
    later = dataset.split_end("validation") + timedelta(days=2)
    folder = bundle_of(poor, "champion", trained_until=later)
    judgement = judged(bundle_of(good), champion=("3", folder))
    (check,) = (c for c in judgement.verdict.checks if c.name == "beats version 3")
    assert "version 3 has been trained until 2026-03-04, after the test period's" in check.reason
    fair = judged(bundle_of(good, "again"), champion=("3", bundle_of(poor, "fair")))
    assert "flatters" not in str(fair.verdict)


def test_a_champion_that_cannot_be_loaded_need_not_be_beaten(bundle_of, judged, good, tmp_path):
    judgement = judged(bundle_of(good), champion=("3", tmp_path / "gone"))
    assert judgement.verdict.promoted
    assert judgement.incumbent is None
    (check,) = (c for c in judgement.verdict.checks if c.name == "beats version 3")
    assert "version 3 cannot be loaded" in check.reason


def test_what_is_judged_is_what_was_saved(bundle_of, judged, good):
    folder = bundle_of(good)
    assert isinstance(load_bundle(folder).model, type(good))
    assert judged(folder) == judged(folder)
