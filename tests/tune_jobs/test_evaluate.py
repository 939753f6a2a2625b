"""One model on one table, through the command line as a newcomer would call it."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perso.models.families import FAMILIES

SMALL = {
    "item_knn": {"num_neighbors": 10},
    "als": {"num_factors": 4, "epochs": 4},
    "spectral": {"num_factors": 4},
    "sgd": {"num_factors": 4, "batch_size": 64},
    "hybrid": {"num_factors": 4, "batch_size": 64},
    "blend": {
        "spectral": {"num_factors": 4},
        "learned": {"num_factors": 4, "batch_size": 64},
        "als": {"num_factors": 4},
    },
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Even users like even items, odd users odd ones: stars, context and features say so too."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(40):
        own = rng.permutation(np.arange(user % 2, 24, 2))
        for place, item in enumerate(own[:10].tolist()):
            rows.append(
                {
                    "user": f"u{user}",
                    "item": f"i{item}",
                    "split": "train" if place < 7 else "test",
                    "rating": 4.0 + place % 2,
                    "context_device": "mobile" if place % 2 else "desktop",
                    "item_kind": "even" if item % 2 == 0 else "odd",
                    "user_club": "even" if user % 2 == 0 else "odd",
                }
            )
    path = tmp_path_factory.mktemp("split") / "two_tastes.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def call(*arguments):
    code = "import sys; from perso.cli import main; sys.argv = ['perso', *sys.argv[1:]]; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def told(table, tmp_path_factory):
    spec = tmp_path_factory.mktemp("spec") / "model.yaml"
    spec.write_text(
        "model: {family: spectral, num_factors: 4}\nevaluate: {k: [5], intervals: 200}\n"
    )
    done = call("evaluate", "--fixed-split", table, "--spec", spec, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_json_says_what_was_measured_and_what_it_cost(told):
    assert told["metrics"]["overall"]["recall@5"] > 0.9
    assert told["metrics"]["num_users"] == 40
    low, high = told["metrics"]["confidence"]["recall@5"]
    assert low <= told["metrics"]["overall"]["recall@5"] <= high
    assert told["cost"]["train_cpu_s"] > 0
    assert told["cost"]["peak_memory_mib"] > 50
    assert told["file"]["train_pairs"] == 280
    assert told["file"]["test_pairs"] == 120


def test_the_json_holds_the_resolved_settings(told):
    model = told["spec"]["model"]
    assert model["family"] == "spectral"
    assert model["num_factors"] == 4
    assert model["item_exponent"] == FAMILIES["spectral"]().item_exponent


@pytest.mark.parametrize("family", SMALL)
def test_every_family_learns_the_table(family, table):
    from perso.models.families import ModelConfig
    from perso.spec import parse_spec
    from tune_jobs.evaluate import EvaluateSpec, run

    config = parse_spec(ModelConfig, {"family": family, **SMALL[family]})
    result = run(config, EvaluateSpec(k=(5,)), table)
    assert result["metrics"]["overall"]["recall@5"] > 0.7
    assert result["spec"]["model"]["family"] == family
    json.dumps(result)


def test_stars_give_an_error_of_prediction(table):
    from perso.models.sgd_config import SgdConfig
    from tune_jobs.evaluate import EvaluateSpec, run

    config = SgdConfig(loss="squared", num_factors=2, batch_size=64, epochs=30)
    overall = run(config, EvaluateSpec(k=(5,)), table)["metrics"]["overall"]
    assert 0 < overall["mae"] <= overall["rmse"] < 0.8


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("model: {family: sdg}", "sdg"),
        ("model: {family: spectral, num_factor: 4}", "num_factor"),
        ("model: {family: sgd, loss: squared, target: stars}", "target"),
        ("evaluate: {k: [0]}", "k is"),
    ],
)
def test_a_wrong_spec_is_one_sentence(spec, says, table, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(spec)
    done = call("evaluate", "--fixed-split", table, "--spec", path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_without_its_columns_is_one_sentence(tmp_path):
    path, spec = tmp_path / "bad.csv", tmp_path / "spec.yaml"
    path.write_text("user,article\n1,2\n")
    spec.write_text("model: {family: spectral}")
    done = call("evaluate", "--fixed-split", path, "--spec", spec)
    assert done.returncode == 2
    assert "item" in done.stderr
    assert "Traceback" not in done.stderr
