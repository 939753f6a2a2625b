"""Who may serve: the better of two kinds of popularity is what a winner has to beat."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.data.groups import UserGroups
from perso.evaluation.report import EvaluationReport
from perso.models.popularity import fit_popularity
from perso.models.side_data import SideData
from perso.tuning.finalist import train_finalist
from perso.tuning.trial import measure
from perso.tuning.verdict import Baseline, judge, measure_popularity


def baseline(value, kind="global", metric="ndcg@5"):
    report = EvaluationReport(
        overall={metric: value},
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


def test_where_an_error_chose_the_winner_the_longest_list_decides_about_serving(search):
    gate = search(fixed={"loss": "squared"}, objective="rmse", k=(10, 20)).gate
    theirs = baseline(0.2, metric="ndcg@20")
    assert judge(gate, model={"ndcg@20": 0.3, "rmse": 9.0}, baseline=theirs).promoted
    refused = judge(gate, model={"ndcg@20": 0.1, "ndcg@10": 0.9, "rmse": 0.0}, baseline=theirs)
    assert not refused.promoted
    assert "ndcg@20 0.1000" in refused.reason


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
def test_a_finalist_has_to_beat_the_better_of_global_and_segment_popularity(
    search, fans_and_crowd, fans_go_on, kind, others
):
    known, held_out, segments = fans_and_crowd(fans_go_on=fans_go_on)
    side = SideData(segments=segments)
    finalist = train_finalist(search(), 0, known=known, held_out=held_out, side=side)
    models = {
        "global": fit_popularity(known),
        "segment": fit_popularity(known, segments),
    }
    reports = {
        name: measure(model, search(), known=known, held_out=held_out, side=side)
        for name, model in models.items()
    }
    assert reports[kind].overall["ndcg@5"] == 1 > reports[others].overall["ndcg@5"]
    assert finalist.baseline == Baseline(kind=kind, report=reports[kind])
    assert finalist.baseline.name == f"{kind} popularity"


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
