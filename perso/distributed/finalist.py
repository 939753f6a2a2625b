"""The final training and test as one task of the cluster, and what the registry is told of it.

What it does is decided in :mod:`perso.tuning.finalist`.
"""

import ray

from perso.data.prepared import Interactions
from perso.distributed.cluster import own_errors
from perso.distributed.trials import by_segment, resources
from perso.models.side_data import SideData
from perso.registry import Registry
from perso.tuning.finalist import Finalist, train_finalist
from perso.tuning.spec import SearchSpec


def train_on_cluster(
    spec: SearchSpec,
    number: int,
    known: Interactions,
    test: Interactions,
    side: SideData,
) -> Finalist:
    """The final training as one task with a trial's share of the cluster (its GPU, if any)."""
    share = resources(spec)
    task = ray.remote(num_cpus=share["CPU"], num_gpus=share["GPU"])(train_finalist)
    with own_errors():
        finalist: Finalist = ray.get(
            task.remote(spec, number, known=known, held_out=test, side=side)
        )
    return finalist


def log_finalist(registry: Registry, run_id: str, finalist: Finalist) -> None:
    """The test's metrics of the winner and of popularity, into the search's run."""
    model, popularity = finalist.model_report, finalist.baseline.report
    theirs = dict(popularity.overall) | by_segment(popularity.per_segment)
    registry.log_metrics(
        run_id,
        dict(model.overall)
        | by_segment(model.per_segment)
        | {f"popularity/{name}": value for name, value in theirs.items()},
        curves={"train/loss": finalist.losses},
    )
