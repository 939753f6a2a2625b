"""The winner trained on all that came before the test period, as it is tested and served."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

from perso.data.prepared import Interactions, PreparedData
from perso.evaluation.report import EvaluationReport
from perso.models.baskets import cut_baskets
from perso.models.bundle import save_bundle
from perso.models.families import fit_model
from perso.models.popularity import PopularityModel, fit_popularity
from perso.models.progress import Progress
from perso.models.protocol import PersonalModel
from perso.models.related_items import fit_bought_together
from perso.models.seen import SeenItems
from perso.models.side_data import SideData
from perso.schema import SPLITS
from perso.spec import spec_to_dict
from perso.tuning.points import Point
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import Fit, measure
from perso.tuning.verdict import Baseline, measure_popularity


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """The winner's settings trained on all data before the test period, beside popularity."""

    model: PersonalModel
    popularity: PopularityModel
    model_report: EvaluationReport
    """On the test period."""
    baseline: Baseline
    """The better kind of popularity on the test period."""
    losses: tuple[float, ...]
    """Training loss after each epoch."""


def train_finalist(
    spec: SearchSpec,
    point: Point,
    *,
    known: Interactions,
    held_out: Interactions,
    side: SideData | None = None,
    fit: Fit = fit_model,
) -> Finalist:
    """Retrain the winning point on train and validation, and test it and popularity once.

    The returned model is the tested one: what is measured is what serves.

    Args:
        spec: The search.
        point: The winning one.
        known: Train and validation, merged.
        held_out: The test period.
        side: Features, and each user's segment as of the end of validation.
        fit: Trains a model; another one where processes share the work.
    """
    side = side or SideData()
    losses: list[float] = []

    def note(progress: Progress) -> None:
        losses.append(progress.loss)

    trained = fit(known, point.config(spec), side, on_epoch=note)
    model = cast("PersonalModel", trained)  # all but popularity, which a search does not try
    popularity = fit_popularity(known, side.segments)
    return Finalist(
        model=model,
        popularity=popularity,
        model_report=measure(model, spec, known=known, held_out=held_out, side=side),
        baseline=measure_popularity(popularity, spec, known=known, held_out=held_out, side=side),
        losses=tuple(losses),
    )


def save_finalist(
    finalist: Finalist,
    folder: Path,
    *,
    data: PreparedData,
    spec: SearchSpec,
    point: Point,
    now: datetime,
) -> Path:
    """The finalist as a bundle: the tested model with everything that serving it takes.

    Model and popularity are the tested ones, from before the test period, as is what was bought
    together; what a user already had is from all three periods, so that nobody is recommended
    what they have just bought.

    Args:
        finalist: What :func:`train_finalist` returned.
        folder: Must not exist yet.
        data: The dataset behind it.
        spec: The search.
        point: The winning one.
        now: Aware; kept in the manifest.

    Raises:
        ArtifactError: If the folder exists.
    """
    return save_bundle(
        folder,
        users=data.users,
        items=data.items,
        model=finalist.model,
        popularity=finalist.popularity,
        catalog=data.catalog(),
        seen=SeenItems.from_interactions(data.interactions(*SPLITS)),
        bought_together=fit_bought_together(cut_baskets(data.interactions("train", "validation"))),
        data_key=data.key,
        spec={
            "prepare": data.manifest["spec"],
            "search": spec_to_dict(spec),
            "model": spec_to_dict(point.config(spec)),
        },
        metrics={
            "model": finalist.model_report.to_dict(),
            "popularity": {"kind": finalist.baseline.kind, **finalist.baseline.report.to_dict()},
        },
        trained_until=data.split_end("validation"),
        created_at=now,
    )
