"""The rules of a search, without Ray: what is tried, who wins, who may serve."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.errors import InputError, SearchError
from perso.evaluation.report import EvaluationReport
from perso.models.popularity import fit_popularity
from perso.spec import load_spec, parse_spec, spec_to_dict
from perso.tuning import (
    OBJECTIVES,
    Baseline,
    SearchSpec,
    Trial,
    best_trial,
    judge,
    measure,
    measure_popularity,
    run_trial,
    train_finalist,
)

QUICK = {"epochs": 8, "batch_size": 64}


def interactions(pairs, *, num_users, num_items, read_only=True):
    """Pairs (user, item) of weight 1 as the arrays that every stage reads."""
    ordered = np.array(sorted(pairs), np.int32).reshape(-1, 2)
    arrays = {
        "user_indices": np.ascontiguousarray(ordered[:, 0]),
        "item_indices": np.ascontiguousarray(ordered[:, 1]),
        "weights": np.ones(len(ordered), np.float32),
        "ratings": np.full(len(ordered), np.nan, np.float32),
        "last_at": np.zeros(len(ordered), np.int64),
    }
    if read_only:  # as they come out of Ray's object store
        for array in arrays.values():
            array.flags.writeable = False
    return Interactions(
        num_users=num_users, num_items=num_items, context_names={}, context_codes={}, **arrays
    )


def two_tastes(num_users=40, num_items=20):
    """Even users like even items, odd users odd ones; each meets the rest of its own later."""
    train, held_out = set(), set()
    rng = np.random.default_rng(0)
    for user in range(num_users):
        liked = rng.permutation(np.arange(user % 2, num_items, 2)).tolist()
        train |= {(user, item) for item in liked[:7]}
        held_out |= {(user, item) for item in liked[7:]}
    shape = {"num_users": num_users, "num_items": num_items}
    return interactions(train, **shape), interactions(held_out, **shape)


def spec(**changes):
    settings = {
        "fixed": QUICK,
        "grid": {"num_factors": (4, 8), "learning_rate": (0.1,), "l2": (0.03, 0.1)},
        "k": (5, 10),
        "objective": "ndcg@5",
    }
    return SearchSpec(**(settings | changes))


def test_points_are_every_combination_once_in_the_order_of_the_grid():
    found = [
        (p.num_factors, p.learning_rate, p.l2, p.epochs, p.seed) for p in spec(seed=3).points()
    ]
    assert found == [(n, 0.1, l2, 8, 3) for n, l2 in itertools.product((4, 8), (0.03, 0.1))]


@given(
    num_factors=st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
    l2=st.lists(st.floats(1e-6, 1), min_size=1, max_size=4, unique=True),
)
def test_a_grid_has_as_many_points_as_the_product_of_its_values(num_factors, l2):
    found = spec(grid={"num_factors": tuple(num_factors), "l2": tuple(l2)})
    settings = [tuple(found.varied(p).items()) for p in found.points()]
    assert len(settings) == len(set(settings)) == len(num_factors) * len(l2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"grid": {}}, "grid is empty"),
        ({"grid": {"l2": ()}}, r"grid\.l2 is empty"),
        ({"grid": {"l2": (0.1, 0.1)}}, r"grid\.l2 repeats a value"),
        ({"grid": {"num_factor": (8,)}}, "num_factor.*settings are: .*num_factors"),
        ({"grid": {"num_factors": (-1,)}}, "-1"),
        ({"fixed": {"epoch": 3}}, "epoch.*settings are: .*epochs"),
        ({"fixed": {"l2": 0.1}}, r"\['l2'\] stand in both"),
        ({"fixed": {"seed": 1}}, "the search's own seed"),
        ({"k": ()}, "k is"),
        ({"k": (0, 5)}, "k is"),
        ({"objective": "ndcg@50"}, r"'ndcg@50' is not measured; choose of .*ndcg@10"),
        ({"objective": "accuracy@5"}, "not measured"),
        ({"objective": "rmse"}, "not measured"),
        ({"cpus_per_trial": 0}, "0 CPUs"),
        ({"gpus_per_trial": -1.0}, "-1.0 GPUs"),
        ({"max_concurrent": 0}, "max_concurrent is 0"),
    ],
)
def test_a_wrong_search_is_refused_before_anything_starts(changes, says):
    with pytest.raises(ValueError, match=says):
        spec(**changes)


def test_a_misspelt_key_in_a_job_file_is_one_named_error(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("grid: {l2: [0.1]}\nobjectiv: ndcg@20\n")
    with pytest.raises(InputError, match="objectiv"):
        load_spec(SearchSpec, path)


def test_numbers_that_yaml_reads_as_text_become_numbers(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("grid: {l2: [1e-4]}\n")  # no dot: YAML 1.1 says string
    assert load_spec(SearchSpec, path).points()[0].l2 == 1e-4


def test_a_spec_survives_its_own_file():
    original = spec(min_rating=3.5, max_concurrent=2)
    assert parse_spec(SearchSpec, spec_to_dict(original)) == original


def test_every_objective_is_a_metric_that_a_trial_measures():
    train, held_out = two_tastes()
    trial = run_trial(spec(), 0, train=train, validation=held_out)
    assert {f"{name}@{k}" for name in OBJECTIVES for k in (5, 10)} <= set(trial.metrics)


def test_a_trial_learns_two_tastes_and_reports_overall_and_per_segment():
    train, held_out = two_tastes()
    segments = UserGroups.from_names(["even" if u % 2 == 0 else "odd" for u in range(40)])
    trial = run_trial(spec(), 3, train=train, validation=held_out, segments=segments)
    assert trial.error is None
    assert trial.settings == {"num_factors": 8, "learning_rate": 0.1, "l2": 0.1}
    assert trial.metrics["recall@5"] > 0.9  # 3 of the 13 unseen items are each user's
    assert {"even", "odd"} <= set(trial.per_segment)
    assert len(trial.losses) == 8
    assert trial.losses[-1] < trial.losses[0]
    assert trial.train_s > 0
    assert trial.evaluate_s > 0


def test_the_same_seed_gives_the_same_trial():
    train, held_out = two_tastes()
    first, second = (run_trial(spec(), 1, train=train, validation=held_out) for _ in range(2))
    assert first.metrics == second.metrics
    assert first.losses == second.losses


def test_a_longer_tuple_of_k_changes_no_metric_of_the_others():
    train, held_out = two_tastes()
    short = run_trial(spec(k=(5,)), 0, train=train, validation=held_out).metrics
    longer = run_trial(spec(k=(3, 5, 10)), 0, train=train, validation=held_out).metrics
    assert {name: longer[name] for name in short} == short


def test_a_trial_that_breaks_is_a_result_with_its_error(monkeypatch):
    def refuse(*args, **kwargs):
        raise MemoryError("no room for 8 factors")

    monkeypatch.setattr("perso.models.sgd.fit_sgd", refuse)
    train, held_out = two_tastes()
    trial = run_trial(spec(), 2, train=train, validation=held_out)
    assert trial.error == "MemoryError: no room for 8 factors"
    assert trial.settings["num_factors"] == 8
    assert trial.metrics == {}


def trial(number, value=None, error=None):
    metrics = {} if value is None else {"ndcg@5": value}
    return Trial(number=number, settings={}, metrics=metrics, error=error)


@given(st.permutations([trial(0, 0.2), trial(1, 0.4), trial(2, 0.4), trial(3, error="boom")]))
def test_the_best_finished_trial_wins_and_the_earlier_one_on_a_tie(trials):
    assert best_trial(trials, "ndcg@5").number == 1


def test_a_trial_that_is_not_a_number_never_wins():
    assert best_trial([trial(0, float("nan")), trial(1, 0.1)], "ndcg@5").number == 1


def test_a_search_without_a_finished_trial_says_the_first_error():
    with pytest.raises(SearchError, match="none of 2 trials finished; the first: boom"):
        best_trial([trial(0, error="boom"), trial(1, error="bang")], "ndcg@5")


def baseline(value, kind="global"):
    report = EvaluationReport(
        overall={"ndcg@5": value},
        per_segment={},
        num_users=1,
        num_users_by_segment={},
        num_ratings=0,
    )
    return Baseline(kind=kind, report=report)


@given(ours=st.floats(0, 1), theirs=st.floats(0, 1), kind=st.sampled_from(["global", "segment"]))
def test_only_strictly_better_than_popularity_may_serve(ours, theirs, kind):
    verdict = judge("ndcg@5", model={"ndcg@5": ours}, baseline=baseline(theirs, kind))
    assert verdict.promoted == (ours > theirs)
    assert f"{kind} popularity's" in verdict.reason
    assert f"{ours:.4f}" in verdict.reason
    assert f"{theirs:.4f}" in verdict.reason


def test_what_could_not_be_measured_may_not_serve():
    verdict = judge("ndcg@5", model={"ndcg@5": float("nan")}, baseline=baseline(0.0))
    assert not verdict.promoted
    assert "could not be measured" in verdict.reason


def fans_and_crowd(*, fans_go_on):
    """40 fans who each had 4 of the 10 niche items, and a crowd of 30 who had the 3 hits.

    Later the fans take either the rest of the niche or the hits.
    """
    niche, hits = set(range(10, 20)), {0, 1, 2}
    had = {fan: {10 + (fan + step) % 10 for step in range(4)} for fan in range(40)}
    known = {(fan, item) for fan, items in had.items() for item in items}
    known |= {(user, item) for user in range(40, 70) for item in hits}
    later = {(f, i) for f in had for i in (niche - had[f] if fans_go_on else hits)}
    segments = UserGroups.from_names(["fans"] * 40 + ["crowd"] * 30)
    shape = {"num_users": 70, "num_items": 20}
    return interactions(known, **shape), interactions(later, **shape), segments


@pytest.mark.parametrize(
    ("fans_go_on", "kind", "others"), [(True, "segment", "global"), (False, "global", "segment")]
)
def test_a_finalist_has_to_beat_the_better_of_global_and_segment_popularity(
    fans_go_on, kind, others
):
    known, held_out, segments = fans_and_crowd(fans_go_on=fans_go_on)
    finalist = train_finalist(spec(), 0, known=known, held_out=held_out, segments=segments)
    models = {
        "global": fit_popularity(known),
        "segment": fit_popularity(known, segments),
    }
    reports = {
        name: measure(model, spec(), known=known, held_out=held_out, segments=segments)
        for name, model in models.items()
    }
    assert reports[kind].overall["ndcg@5"] == 1 > reports[others].overall["ndcg@5"]
    assert finalist.baseline == Baseline(kind=kind, report=reports[kind])
    assert finalist.baseline.name == f"{kind} popularity"


def test_without_segments_or_without_a_difference_the_baseline_is_global_popularity():
    known, held_out, _ = fans_and_crowd(fans_go_on=True)
    everyone = UserGroups.from_names(["everyone"] * 70)
    for segments in (None, everyone):
        found = measure_popularity(
            fit_popularity(known, segments),
            spec(),
            known=known,
            held_out=held_out,
            segments=segments,
        )
        assert found.kind == "global"


def test_the_finalist_is_tested_as_it_will_serve():
    known, held_out = two_tastes()
    finalist = train_finalist(spec(), 3, known=known, held_out=held_out)
    again = measure(finalist.factors, spec(), known=known, held_out=held_out, segments=None)
    assert finalist.model_report.overall == again.overall
    assert finalist.model_report.overall["ndcg@5"] > finalist.baseline.report.overall["ndcg@5"]


def test_the_finalist_uses_the_winning_settings():
    known, held_out = two_tastes()
    finalist = train_finalist(spec(), 3, known=known, held_out=held_out)
    assert finalist.factors.item_factors_ID.shape == (20, 8)
