"""A search on a published split: validation from train only, the test looked at once."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perso.data.fixed_split import read_fixed_split
from perso.distributed.fixed_search import search_fixed_split
from perso.tuning.grid import GridSpec
from perso.tuning.spec import SearchSpec
from tune_jobs.report import print_fixed_report

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Even users like even items, odd users odd ones; nothing else is known of either."""
    rng = np.random.default_rng(0)
    rows = [
        {"user": user, "item": item, "split": "train" if place < 8 else "test"}
        for user in range(40)
        for place, item in enumerate(rng.permutation(np.arange(user % 2, 24, 2)).tolist())
    ]
    path = tmp_path_factory.mktemp("split") / "two_tastes.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return read_fixed_split(path)


def test_the_winner_on_validation_is_tested_once_and_nothing_is_registered(
    ray_cluster, split, workspace, capsys
):
    from perso.registry import Registry

    spec = SearchSpec(
        grids=(
            GridSpec(family="spectral", grid={"num_factors": (1, 4)}),
            GridSpec(family="hybrid", fixed={"num_factors": 4, "batch_size": 64}),
        ),
        k=(3,),
        objective="ndcg@3",
    )
    result = search_fixed_split(spec, split, workspace)
    assert [trial.error for trial in result.trials] == [None, None, None]
    assert result.winner == max(result.trials, key=lambda trial: trial.metrics["ndcg@3"])
    assert result.finalist.model_report.overall["recall@3"] > 0.7
    assert result.finalist.model_report.num_users == 40
    assert Registry(workspace).versions() == []
    told = json.loads(json.dumps(result.to_dict()))
    assert told["winner"] == result.winner.settings
    assert len(told["trials"]) == 3
    print_fixed_report(result)
    assert "winner on the test rows" in capsys.readouterr().out
