"""The final training, its test and the gate as tasks of the cluster.

What they do is decided in :mod:`perso.tuning`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import ray

from perso.data.prepared import Interactions, PreparedData
from perso.distributed.cluster import own_errors
from perso.distributed.fitting import Fitting
from perso.distributed.trials import by_segment, resources
from perso.models.side_data import SideData
from perso.registry import ModelVersion, Registry
from perso.tuning.finalist import Finalist, train_finalist
from perso.tuning.points import Point
from perso.tuning.spec import SearchSpec
from perso.tuning.verdict import Baseline, Judgement, judge

T = TypeVar("T")


def train_on_cluster(
    spec: SearchSpec,
    point: Point,
    known: Interactions,
    test: Interactions,
    side: SideData,
    *,
    storage: Path,
) -> Finalist:
    """The final training as one task with a trial's share of the cluster (its GPU, if any).

    Args:
        spec: The search.
        point: The winning one.
        known: Train and validation, merged.
        test: The test period.
        side: Segments and features as of the end of ``known``.
        storage: For checkpoints of a training that several processes share.
    """
    return _run(
        spec,
        train_finalist,
        spec,
        point,
        known=known,
        held_out=test,
        side=side,
        fit=Fitting.of(spec, storage),
    )


def judge_on_cluster(
    spec: SearchSpec,
    challenger: Path,
    champion: ModelVersion | None,
    baseline: Baseline,
    *,
    data: PreparedData,
    known: Interactions,
    test: Interactions,
    side: SideData,
) -> Judgement:
    """The gate as one task; arguments as of :func:`perso.tuning.verdict.judge`."""
    return _run(
        spec,
        judge,
        spec.gate,
        challenger,
        metric=spec.gate_metric,
        ks=spec.k,
        min_rating=spec.min_rating,
        baseline=baseline,
        champion=None if champion is None else (champion.version, champion.folder),
        users=data.users,
        items=data.items,
        known=known,
        held_out=test,
        side=side,
        starts_at=data.split_end("validation"),
    )


def _run(spec: SearchSpec, function: Callable[..., T], *given: Any, **named: Any) -> T:
    """One call where there is room for a trial; a lost node is another try."""
    share = resources(spec) if spec.workers_per_trial == 1 else {"CPU": 0.0, "GPU": 0.0}
    task = ray.remote(num_cpus=share["CPU"], num_gpus=share["GPU"])(function)
    with own_errors():
        result: T = ray.get(task.remote(*given, **named))
    return result


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
