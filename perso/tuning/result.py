"""A finished search: what was tried, who won, how it was tested, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perso.evaluation.report import EvaluationReport
from perso.spec import spec_to_dict
from perso.tuning.finalist import Finalist
from perso.tuning.gate import Verdict
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import Trial
from perso.tuning.verdict import Baseline, Incumbent


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """One finished search."""

    spec: SearchSpec
    trials: tuple[Trial, ...]
    """Every trial, by number."""
    winner: Trial
    validation_baseline: Baseline
    """The better popularity fitted on train, on the period that chose the winner."""
    tested: EvaluationReport
    """The winner retrained on train and validation, on the test period."""
    test_baseline: Baseline
    """The better popularity fitted on train and validation, on the test period."""
    champion: Incumbent | None
    """Who served before, on the test period; None if nobody did."""
    verdict: Verdict
    """Whether the winner became the champion, and why."""
    version: str
    """The winner in the registry, champion or not."""
    lineage: Mapping[str, str]
    """``data_key``, ``data_hash`` and where there was one ``git_commit``."""
    periods: Mapping[str, str]
    """What train, validation and test cover, in words with days."""
    started_at: datetime
    """When it was first begun, aware."""
    seconds: float
    """From its first beginning to its end; interruptions are in it."""


@dataclass(frozen=True, kw_only=True)
class FixedSearchResult:
    """One finished search on a fixed split."""

    spec: SearchSpec
    trials: tuple[Trial, ...]
    """Every trial, by number."""
    winner: Trial
    finalist: Finalist
    """The winner trained on all of train, on the test."""
    seconds: float
    """Wall time of the whole search."""

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able values."""
        return {
            "spec": spec_to_dict(self.spec),
            "trials": [
                {
                    "settings": trial.settings,
                    "validation": trial.metrics,
                    "train_s": trial.train_s,
                    "evaluate_s": trial.evaluate_s,
                    "error": trial.error,
                }
                for trial in self.trials
            ],
            "winner": self.winner.settings,
            "test": self.finalist.model_report.to_dict(),
            "popularity": self.finalist.baseline.report.to_dict(),
            "seconds": self.seconds,
        }
