"""The recipe as a user starts it, and the specs it ships with."""

from pathlib import Path

import pytest

from perso.registry import Registry
from perso.spec import load_spec
from perso.tuning.points import planned_points
from perso.workspace import Workspace
from tune_jobs.grid_search import main
from tune_jobs.spec import JobSpec

SPECS = sorted((Path(__file__).parents[2] / "tune_jobs" / "specs").glob("*.yaml"))

TINY_JOB = """
prepare:
  shop: {num_users: 300, num_items: 120, num_days: 60}
  num_partitions: 2
search:
  name: tiny
  grids:
  - fixed: {epochs: 4, batch_size: 1024, l2: 0.1}
    grid: {num_factors: [8, 16]}
  - family: item_knn
  k: [5, 20]
  objective: recall@20
"""


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_every_shipped_spec_is_a_valid_job(path):
    spec = load_spec(JobSpec, path).search
    assert spec.extremes()
    assert spec.searcher == "tpe" or planned_points(spec)


def test_there_is_a_spec_for_the_demo_and_one_for_real_work():
    assert {"quick.yaml", "full.yaml"} <= {path.name for path in SPECS}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("serach: {}", "serach"),
        ("search: {grids: [{grid: {num_factor: [8]}}]}", "num_factor"),
        ("search: {grids: [{family: popularity}]}", "item_knn"),
        ("search: {objective: ndcg@7}", "ndcg@7"),
        ("search: [", "not YAML"),
        (None, "cannot read spec"),
    ],
)
def test_a_wrong_spec_is_one_sentence_and_exit_code_2(text, says, tmp_path, capsys):
    path = tmp_path / "job.yaml"
    if text is not None:
        path.write_text(text)
    assert main(["--spec", str(path), "--root", str(tmp_path / "root")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not (tmp_path / "root").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_events_become_a_tested_version_and_a_table(ray_cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = tmp_path / "job.yaml"
    path.write_text(TINY_JOB)
    root = tmp_path / "root"
    assert main(["--spec", str(path), "--root", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "recall@20" in printed
    assert "item_knn" in printed
    assert "(newcomers)" in printed
    assert "popularity vs tuned model" in printed
    registry = Registry(Workspace(root))
    (version,) = registry.versions()
    champion = registry.champion()
    assert (champion is not None) == (" beats " in printed)
    assert f"version {version.version}:" in printed
    assert 0 <= version.metrics["recall@20"] <= 1
