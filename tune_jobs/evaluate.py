"""One model on one published split: trained, tested, measured, told as JSON.

A recipe: every step is a library call. Needs no cluster and no registry, so that a newcomer can
hold any family against a paper's table in one command.
"""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perso.data.fixed_split import FixedSplit, read_fixed_split
from perso.evaluation.report import evaluate
from perso.models.families import OneOfTheConfigs, fit_model
from perso.models.side_data import SideData
from perso.spec import spec_to_dict


@dataclass(frozen=True, kw_only=True)
class EvaluateSpec:
    """How a model is measured."""

    k: tuple[int, ...] = (10, 20)
    """List lengths."""
    min_rating: float = 4.0
    """Least rating of a held-out item that a list should hold; items without one all count."""
    intervals: int = 0
    """Bootstrap resamples of the users behind each confidence interval; 0: no intervals."""
    seed: int = 0
    """Of the resamples."""

    def __post_init__(self) -> None:
        if not self.k or min(self.k) < 1:
            raise ValueError(f"k is {list(self.k)}; give list lengths of 1 or more")
        if self.intervals < 0:
            raise ValueError(f"intervals is {self.intervals}; give 0 or more")


def run(model: OneOfTheConfigs, spec: EvaluateSpec, path: Path | str) -> dict[str, Any]:
    """Everything there is to say of one model on one file, as JSON-able values.

    Seconds of CPU are those of every thread of this process. The peak of memory is the process's,
    the reading of the file included.

    Raises:
        InputError: If the file cannot be used.
        ValueError: If the family cannot learn from it.
    """
    split = read_fixed_split(path)
    side = SideData.of_split(split)
    clock = _Clock()
    fitted = fit_model(split.train, model, side)
    training = clock.lap()
    report = evaluate(
        fitted,
        train=split.train,
        held_out=split.test,
        ks=spec.k,
        min_rating=spec.min_rating,
        catalog=side.item_features,
        intervals=spec.intervals,
        seed=spec.seed,
    )
    evaluation = clock.lap()
    return {
        "file": {"path": str(path), "hash": split.hash, **split_counts(split)},
        "spec": {"model": spec_to_dict(model), "evaluate": spec_to_dict(spec)},
        "metrics": report.to_dict(),
        "cost": {
            "train_cpu_s": training["cpu_s"],
            "train_wall_s": training["wall_s"],
            "evaluate_cpu_s": evaluation["cpu_s"],
            "evaluate_wall_s": evaluation["wall_s"],
            "users_per_s": report.num_users / max(evaluation["wall_s"], 1e-9),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "cores": os.cpu_count(),
        },
    }


def split_counts(split: FixedSplit) -> dict[str, Any]:
    """What the file held and what became of it."""
    return {
        "rows": split.num_rows,
        "users": len(split.users),
        "items": len(split.items),
        "train_pairs": len(split.train),
        "test_pairs": len(split.test),
        "in_both": split.in_both,
        "dropped": dict(split.dropped),
        "disagreements": dict(split.disagreements),
    }


class _Clock:
    """CPU and wall seconds from lap to lap."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def lap(self) -> dict[str, float]:
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        lap = {"cpu_s": cpu_s - self._cpu_s, "wall_s": wall_s - self._wall_s}
        self._cpu_s, self._wall_s = cpu_s, wall_s
        return lap
