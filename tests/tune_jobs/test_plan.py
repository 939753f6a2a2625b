"""What ``perso tune --dry-run`` says before anything runs."""

import io
import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from perso.data.prepared import FORMAT_VERSION, PreparedData
from perso.data.vocabulary import Vocabulary
from perso.distributed.interactions import PLACE
from perso.schema import INTERACTION_SCHEMA
from perso.spec import parse_spec, spec_to_dict
from perso.tuning.estimate import estimate_trials
from perso.tuning.points import planned_points
from tune_jobs.plan import plan
from tune_jobs.report import print_plan
from tune_jobs.spec import JobSpec

PREPARE = {"shop": {"num_users": 60, "num_items": 24, "num_days": 30}}
SEARCH = {
    "name": "spring",
    "grids": [
        {"fixed": {"epochs": 4, "batch_size": 64}, "grid": {"num_factors": [4, 8], "l2": [0.125]}},
        {"family": "item_knn", "grid": {"num_neighbors": [5]}},
    ],
}
SAMPLE = {"l2": {"loguniform": [0.01, 1]}}


def job(prepare=PREPARE, **search):
    return parse_spec(JobSpec, {"prepare": prepare, "search": SEARCH | search})


def rows(planned_job, workspace):
    """The table's rows, split at blanks."""
    console = Console(file=io.StringIO(), width=80)
    print_plan(planned_job.search, *plan(planned_job, workspace), console=console)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    return [words for words in lines if words and words[0].isdigit()]


@pytest.fixture
def said(caplog):
    """What the log says."""
    with caplog.at_level(logging.INFO, logger="tune_jobs.plan"):
        yield caplog


@pytest.fixture
def ready(workspace):
    """The job's dataset, as ``perso prepare`` would have left it."""
    rng = np.random.default_rng(0)
    spec = job().prepare
    folder = workspace.datasets / "key"
    (folder / "interactions" / "train").mkdir(parents=True)
    blank = dict.fromkeys(INTERACTION_SCHEMA.names) | {"daypart": "night"}
    at = pa.scalar(0, INTERACTION_SCHEMA.field("last_at").type).as_py()
    pairs = [
        blank
        | {"user_index": user, "item_index": int(item), "weight": 1.0, "num_events": 1}
        | {"first_at": at, "last_at": at}
        for user in range(60)
        for item in np.sort(rng.permutation(24)[:8])
    ]
    table = pa.Table.from_pylist(pairs, INTERACTION_SCHEMA)
    pq.write_table(table, folder / "interactions" / "train" / "part.parquet")
    Vocabulary(pa.array([f"u{n}" for n in range(60)])).save(folder / "users.arrow")
    Vocabulary(pa.array([f"i{n}" for n in range(24)])).save(folder / "items.arrow")
    resolved = spec_to_dict(spec)
    manifest = {
        "format_version": FORMAT_VERSION,
        "key": "key",
        "split_ends": {"train": "2026-01-01T00:00:00+00:00"},
        "source": {"name": "synthetic", "files": [], "shop": resolved["shop"]},
        "spec": {name: value for name, value in resolved.items() if name not in PLACE},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (workspace.datasets / "latest").write_text("key")
    return PreparedData(folder)


def test_every_trial_is_printed_once_with_its_settings(workspace):
    assert rows(job(), workspace) == [
        ["0", "sgd", "num_factors=4", "l2=0.125"],
        ["1", "sgd", "num_factors=8", "l2=0.125"],
        ["2", "item_knn", "num_neighbors=5"],
    ]


def test_several_seeds_are_told_apart(workspace):
    found = rows(job(seeds=[0, 7]), workspace)
    assert len(found) == 6
    assert [words[-1] for words in found] == ["seed=0", "seed=7"] * 3


def test_drawn_trials_are_those_that_would_run(workspace):
    grids = [{"sample": SAMPLE}]
    drawn = job(grids=grids, searcher="random", budget={"trials": 5})
    points, _ = plan(drawn, workspace)
    assert points == planned_points(drawn.search)
    assert [words[2] for words in rows(drawn, workspace)] == [
        f"l2={point.searched['l2']:.5g}" for point in points
    ]


def test_a_space_that_is_used_up_is_counted_by_what_it_gives(workspace):
    small = job(searcher="random", budget={"trials": 50})
    console = Console(file=io.StringIO(), width=80)
    print_plan(small.search, *plan(small, workspace), console=console)
    assert "spring: 3 trials by searcher random" in console.file.getvalue()


def test_without_the_data_there_are_no_estimates_and_the_log_says_why(workspace, said):
    points, estimates = plan(job(), workspace)
    assert (len(points), estimates) == (3, {})
    assert "`perso prepare` first" in said.text
    assert not workspace.root.exists()


def test_with_the_data_every_trial_has_an_estimate(workspace, ready, said):
    _, estimates = plan(job(), workspace)
    assert estimates.keys() == {0, 1, 2}
    assert all(estimate.cpu_s > 0 for estimate in estimates.values())
    assert said.text == ""
    *trials, total = rows(job(), workspace)
    assert len(trials) == 3
    assert all(float(words[-1]) >= 0 for words in trials)
    assert total[1:6] == ["CPU", "s", "of", "training", "in"]


def test_drawn_settings_that_a_family_refuses_together_have_no_estimate(workspace, ready):
    grids = [
        {
            "fixed": {"epochs": 2, "batch_size": 64, "num_factors": 4, "target": "weights"},
            "grid": {"loss": ["squared", "softmax"], "dropout": [0.0, 0.5]},
        }
    ]
    points, estimates = plan(job(grids=grids, searcher="random", budget={"trials": 50}), workspace)
    refused = {
        p.number for p in points if (p.searched["loss"], p.searched["dropout"]) == ("squared", 0.5)
    }
    assert len(points) == 4
    assert len(refused) == 1
    assert estimates.keys() == {0, 1, 2, 3} - refused


@pytest.mark.parametrize(
    "other",
    [
        {"shop": PREPARE["shop"] | {"num_users": 90_000}},
        PREPARE | {"num_partitions": 3},
        {"source": "events", "path": "events.jsonl"},
    ],
    ids=["another shop", "other settings", "another source"],
)
def test_data_of_another_job_give_no_estimates(workspace, ready, said, other):
    points, estimates = plan(job(prepare=other), workspace)
    assert (len(points), estimates) == (3, {})
    assert "`perso prepare` first" in said.text


def test_a_searcher_that_waits_for_results_plans_no_trial_and_says_so(workspace, ready, said):
    waiting = job(grids=[{"sample": SAMPLE}], searcher="tpe", budget={"trials": 5})
    assert plan(waiting, workspace) == ([], {})
    assert "tpe chooses each trial by the results" in said.text
    assert rows(waiting, workspace) == []


def test_an_estimate_grows_with_the_epochs_and_what_a_family_refuses_has_none(ready):
    train = ready.interactions("train")
    search = job(
        grids=[
            {"fixed": {"num_factors": 4, "batch_size": 64}, "grid": {"epochs": [5, 50]}},
            {"fixed": {"loss": "squared", "epochs": 2}},  # there is no rating to learn
        ]
    ).search
    estimates = estimate_trials(search, planned_points(search), train)
    assert estimates.keys() == {0, 1}
    assert estimates[1].cpu_s == pytest.approx(10 * estimates[0].cpu_s)
