"""Runs: opened, logged to, reopened, found again."""

import shutil
from pathlib import Path


def test_more_metrics_than_one_batch_holds_are_all_logged(registry):
    run_id = registry.open_run("search")
    registry.log_metrics(run_id, {}, curves={"loss": [float(i) for i in range(1005)]})
    assert registry._client.get_run(run_id).data.metrics == {"loss": 1004.0}


def test_params_keep_their_values_however_many_and_whatever_they_are_named(registry):
    params = {f"grids.{n}.l2": n for n in range(250)} | {"constraints.coverage@20.at_least": 0.1}
    run_id = registry.open_run("search", params=params)
    kept = registry._client.get_run(run_id).data.params
    assert len(kept) == 251
    assert kept["grids.249.l2"] == "249"
    assert kept["constraints.coverage_at_20.at_least"] == "0.1"


def test_a_child_run_stands_under_its_parent_and_ends_with_its_status(registry):
    parent = registry.open_run("search")
    child = registry.open_run("trial 0", parent_run_id=parent)
    registry.close_run(child, status="FAILED", tags={"error": "boom"})
    run = registry._client.get_run(child)
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["error"] == "boom"
    assert run.info.status == "FAILED"
    assert registry._client.get_run(parent).info.status == "RUNNING"


def test_a_run_that_was_cut_off_goes_on_where_it_was(registry):
    run_id = registry.open_run("search")
    registry.close_run(run_id, status="FAILED", tags={"error": "killed"})
    registry.reopen_run(run_id)
    assert registry._client.get_run(run_id).info.status == "RUNNING"
    registry.log_metrics(run_id, {"ndcg@20": 0.5})
    registry.close_run(run_id)
    run = registry._client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.end_time is not None
    assert run.data.metrics == {"ndcg_at_20": 0.5}


def test_children_are_found_by_their_tag_and_the_newest_of_a_repeated_one_counts(registry):
    parent, other = registry.open_run("search"), registry.open_run("another search")
    first, repeated = (
        registry.open_run(f"trial {n}", parent_run_id=parent, tags={"trial": n}) for n in ("0", "1")
    )
    registry.open_run("no trial", parent_run_id=parent)
    registry.open_run("trial 0", parent_run_id=other, tags={"trial": "0"})
    again = registry.open_run("trial 1", parent_run_id=parent, tags={"trial": "1"})
    assert repeated != again
    assert registry.child_runs(parent) == {"0": first, "1": again}
    assert registry.child_runs(first) == {}
    registry.close_run(first)
    assert registry.child_runs(parent, status="RUNNING") == {"1": again}


def test_files_kept_beside_a_run_are_found_on_this_machine(registry, tmp_path):
    run_id = registry.open_run("search")
    assert registry.artifacts(run_id) == []
    folder = tmp_path / "report"
    (folder / "pictures").mkdir(parents=True)
    (folder / "report.html").write_text("<p>better</p>")
    (folder / "pictures" / "one.svg").write_text("<svg/>")
    registry.log_artifacts(run_id, folder)
    shutil.rmtree(folder)
    (kept,) = registry.artifacts(run_id)
    assert Path(kept).read_text() == "<p>better</p>"
