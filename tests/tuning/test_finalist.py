"""The winner, retrained, tested, saved and served, whatever its family."""

from datetime import timedelta

import numpy as np
import pytest

from perso.models.baskets import cut_baskets
from perso.models.bundle import load_bundle
from perso.models.item_knn import ItemKnnModel
from perso.models.related_items import fit_bought_together
from perso.models.side_data import SideData
from perso.online.live import LiveRecommender, Question
from perso.schema import SPLITS
from perso.spec import spec_to_dict
from perso.stream.event import Event
from perso.stream.event_log import EventLog
from perso.tuning.finalist import save_finalist, train_finalist
from perso.tuning.grid import GridSpec
from perso.tuning.points import planned_points
from perso.tuning.standings import best_trial
from perso.tuning.trial import measure, run_trial
from perso.tuning.verdict import judge


def test_the_finalist_is_tested_as_it_will_serve(search, two_tastes):
    known, held_out = two_tastes
    finalist = train_finalist(search(), planned_points(search())[3], known=known, held_out=held_out)
    again = measure(finalist.model, search(), known=known, held_out=held_out, side=SideData())
    assert finalist.model_report.overall == again.overall
    assert finalist.model_report.overall["ndcg@5"] > finalist.baseline.report.overall["ndcg@5"]
    assert len(finalist.losses) == 8


def test_the_finalist_uses_the_winning_settings(search, two_tastes):
    known, held_out = two_tastes
    finalist = train_finalist(search(), planned_points(search())[3], known=known, held_out=held_out)
    assert finalist.model.item_factors_ID.shape == (20, 8)


@pytest.fixture
def two_families(search):
    """One sgd that has no time to learn, then item k-NN: it wins by construction."""
    return search(
        grids=(
            GridSpec(fixed={"epochs": 1, "num_factors": 1, "learning_rate": 1e-6, "device": "cpu"}),
            GridSpec(family="item_knn", grid={"num_neighbors": (5, 10)}),
        )
    )


def test_a_search_over_two_families_serves_the_winner_of_either_class(
    two_families, dataset, tmp_path
):
    train, validation = dataset.interactions("train"), dataset.interactions("validation")
    trials = [
        run_trial(two_families, point, train=train, validation=validation)
        for point in planned_points(two_families)
    ]
    winner = best_trial(trials, two_families)
    assert [trial.settings["family"] for trial in trials] == ["sgd", "item_knn", "item_knn"]
    assert winner.settings["family"] == "item_knn"
    assert winner.metrics["ndcg@5"] > trials[0].metrics["ndcg@5"]

    known, test = dataset.interactions("train", "validation"), dataset.interactions("test")
    finalist = train_finalist(two_families, winner.point, known=known, held_out=test)
    now = dataset.split_end("test") + timedelta(days=1)
    folder = save_finalist(
        finalist,
        tmp_path / "bundle",
        data=dataset,
        spec=two_families,
        point=winner.point,
        now=now,
    )
    judgement = judge(
        two_families.gate,
        folder,
        metric=two_families.gate_metric,
        ks=two_families.k,
        min_rating=two_families.min_rating,
        baseline=finalist.baseline,
        champion=None,
        users=dataset.users,
        items=dataset.items,
        known=known,
        held_out=test,
        side=SideData(),
        starts_at=dataset.split_end("validation"),
    )
    assert judgement.verdict.promoted, judgement.verdict.reason
    bundle = load_bundle(folder, verify=True)
    assert isinstance(bundle.model, ItemKnnModel)
    assert bundle.manifest["spec"]["model"] == spec_to_dict(winner.point.config(two_families))

    log = EventLog(tmp_path / "log.sqlite")
    live = LiveRecommender(log)
    live.load("1", folder)
    mine = live.recommend(Question(user_id="u0", k=5, exclude_seen=False), now=now)
    assert mine.rung == "personal"
    assert all(int(item.item_id[1:]) % 2 == 0 for item in mine.items)
    seen = {bundle.items.id_of(index) for index in bundle.seen.of(0)}
    assert len(seen) == 10  # of all three periods
    hidden = live.recommend(Question(user_id="u0", k=20), now=now)
    assert not seen & {item.item_id for item in hidden.items}

    alike = live.similar("i3", k=5)
    assert all(item.source == "similar" for item in alike.items)
    assert all(int(item.item_id[1:]) % 2 == 1 for item in alike.items)
    assert "i3" not in {item.item_id for item in alike.items}

    together = live.bought_together("i3", k=5)
    assert all(item.source == "bought_together" for item in together.items)
    assert all(int(item.item_id[1:]) % 2 == 1 for item in together.items)
    before_test = fit_bought_together(cut_baskets(known))
    later = fit_bought_together(cut_baskets(dataset.interactions(*SPLITS)))
    np.testing.assert_array_equal(bundle.bought_together.scores_IN, before_test.scores_IN)
    assert (later.scores_IN != before_test.scores_IN).any()  # the test period would show

    stranger = Question(session_id="s", k=5)
    assert live.recommend(stranger, now=now).rung == "context_popular"
    click = Event(event_id="1", event_type="view_item", session_id="s", item_id="i3", timestamp=now)
    log.append([click])
    after = live.recommend(stranger, now=now)
    assert after.rung == "personal"
    assert all(int(item.item_id[1:]) % 2 == 1 for item in after.items)


def test_every_family_that_a_search_tries_can_be_saved_and_served(search, dataset, tmp_path):
    known, test = dataset.interactions("train", "validation"), dataset.interactions("test")
    quick = {"epochs": 2, "device": "cpu"}
    spec = search(
        grids=(
            GridSpec(family="item_knn"),
            GridSpec(family="als", fixed={"num_factors": 4, "epochs": 2}),
            GridSpec(family="spectral", fixed={"num_factors": 4, "device": "cpu"}),
            GridSpec(family="sgd", fixed={"num_factors": 4, **quick}),
            GridSpec(family="hybrid", fixed={"num_factors": 4, **quick}),
            GridSpec(
                family="blend",
                fixed={
                    "spectral.num_factors": 4,
                    "spectral.device": "cpu",
                    "learned.num_factors": 4,
                    "learned.epochs": 2,
                    "learned.device": "cpu",
                },
            ),
        )
    )
    now = dataset.split_end("test") + timedelta(days=1)
    side = SideData(item_features=dataset.catalog())
    for point in planned_points(spec):
        family = spec.grids[point.grid].family
        finalist = train_finalist(spec, point, known=known, held_out=test, side=side)
        folder = save_finalist(
            finalist,
            tmp_path / family,
            data=dataset,
            spec=spec,
            point=point,
            now=now,
        )
        loaded = load_bundle(folder).model
        again = measure(loaded, spec, known=known, held_out=test, side=side)
        np.testing.assert_equal(again.to_dict(), finalist.model_report.to_dict())
        live = LiveRecommender(EventLog(tmp_path / f"{family}.sqlite"))
        live.load("1", folder)
        answer = live.recommend(Question(user_id="u0", k=5, exclude_seen=False), now=now)
        assert (answer.rung, len(answer.items)) == ("personal", 5), family
        assert live.similar("i3", k=3).items[0].source == "similar", family
