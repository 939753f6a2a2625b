"""Whether a tested model may serve: everything the gate asks, measured on the test period.

Two rules protect the answer: the winner is chosen on the validation period alone, and the test
period is looked at once, by the winner retrained on everything before it, by popularity fitted on
the same data and by the champion as it stands. What is judged is the artifact that would serve,
not the model in memory that it was saved from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from perso.data.prepared import Interactions
from perso.data.vocabulary import Vocabulary
from perso.errors import ArtifactError
from perso.evaluation.per_user import PerUser, measure_per_user
from perso.evaluation.report import EvaluationReport, report_of
from perso.models.bundle import load_bundle
from perso.models.popularity import PopularityModel
from perso.models.protocol import Scorer
from perso.models.reindexed import ReindexedModel
from perso.models.side_data import SideData
from perso.tuning.checks import (
    artifact_fails,
    check_answers,
    check_floors,
    check_gain,
    check_segments,
)
from perso.tuning.gate import Check, GateSpec, Verdict
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import measure

PopularityKind = Literal["global", "segment"]

_NUM_ASKED: Final = 20
"""Known users whose lists are looked at before an artifact may serve."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a model has to beat on one period: the kind of popularity that does better there."""

    kind: PopularityKind
    """Everyone gets what sells in the whole shop, or in the own segment."""
    report: EvaluationReport
    """Of that kind, over the same users as the model's."""

    @property
    def name(self) -> str:
        """For tables and sentences."""
        return f"{self.kind} popularity"


def measure_popularity(
    popularity: PopularityModel,
    spec: SearchSpec,
    *,
    known: Interactions,
    held_out: Interactions,
    side: SideData,
) -> Baseline:
    """The better of global and segment popularity by the gate's metric; the global one on a tie.

    Neither is always the stronger: a segment may have a taste of its own, or too few purchases to
    show it.

    Args:
        popularity: Fitted on ``known``; without segments in it there is only the global kind.
        spec: The search, with the gate's metric.
        known: All that popularity has counted.
        held_out: The period after it.
        side: With each user's segment as of the end of ``known``.
    """
    measured = [
        Baseline(
            kind=kind,
            report=measure(model, spec, known=known, held_out=held_out, side=side),
        )
        for kind, model in _kinds(popularity).items()
    ]
    return max(measured, key=lambda baseline: baseline.report.overall[spec.gate_metric])


@dataclass(frozen=True, kw_only=True)
class Incumbent:
    """The champion before a search, on the search's test period."""

    version: str
    report: EvaluationReport
    """Over the same users as the challenger's, as the service would have answered them without
    what they did since its training."""
    trained_until: datetime
    """After the period's beginning: it has learned from answers to the test, which flatters it."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the gate says, and what it has measured for that."""

    verdict: Verdict
    incumbent: Incumbent | None
    """None: no champion yet, or none that can be loaded."""


def judge(
    gate: GateSpec,
    challenger: Path,
    *,
    metric: str,
    ks: Sequence[int],
    min_rating: float,
    baseline: Baseline,
    champion: tuple[str, Path] | None,
    users: Vocabulary,
    items: Vocabulary,
    known: Interactions,
    held_out: Interactions,
    side: SideData,
    starts_at: datetime,
) -> Judgement:
    """Every check of the gate, on the artifact that would serve.

    Args:
        gate: What is asked.
        challenger: The winner's bundle, over ``users`` and ``items``.
        metric: The ranking metric that decides, at one of the list lengths.
        ks: List lengths.
        min_rating: Least rating of a relevant item, where there is one.
        baseline: The better kind of popularity; its values are measured anew, user by user.
        champion: Version and bundle of what serves now; None before the first promotion.
        users: Of the dataset.
        items: Of the dataset.
        known: All that the challenger has learned from.
        held_out: The test period.
        side: Segments and catalogue as of the period's beginning.
        starts_at: The period's beginning, aware.

    Raises:
        ValueError: If a floor's metric or the gate's is not measured at these list lengths.
    """
    try:
        bundle = load_bundle(challenger, verify=True)
    except ArtifactError as error:
        return Judgement(verdict=_verdict([artifact_fails(str(error))], champion), incumbent=None)
    period = _Period(ks, min_rating, known, held_out, side)
    ours = period.ask(bundle.model)
    rival, theirs = baseline.name, period.ask(_kinds(bundle.popularity)[baseline.kind])
    checks = [check_gain(gate, metric, ours, theirs, rival=rival)]
    incumbent = None
    if champion is not None:
        version, folder = champion
        try:
            served = load_bundle(folder)
        except ArtifactError as error:
            checks.append(_unmeasured(version, error))
        else:
            rival, model = f"version {version}", ReindexedModel.of(served, users=users, items=items)
            theirs = period.ask(model)
            incumbent = Incumbent(
                version=version,
                report=period.report(theirs, model),
                trained_until=datetime.fromisoformat(served.manifest["trained_until"]),
            )
            flattered = _flattery(rival, incumbent.trained_until, starts_at)
            checks.append(check_gain(gate, metric, ours, theirs, rival=rival, caveat=flattered))
    checks.append(check_segments(gate, metric, ours, theirs, rival=rival))
    checks += check_floors(gate, period.report(ours, bundle.model).overall)
    known_users = ours.users.user_indices_B[ours.is_known_B][:_NUM_ASKED]
    asked = {f"known user {n}": int(user) for n, user in enumerate(known_users, start=1)}
    checks.append(check_answers(bundle, {**asked, "a stranger": -1}, k=max(ks)))
    return Judgement(verdict=_verdict(checks, champion), incumbent=incumbent)


@dataclass(frozen=True)
class _Period:
    """What every model is asked on the test period."""

    ks: Sequence[int]
    min_rating: float
    known: Interactions
    held_out: Interactions
    side: SideData

    def ask(self, model: Scorer) -> PerUser:
        return measure_per_user(
            model,
            train=self.known,
            held_out=self.held_out,
            ks=self.ks,
            segments=self.side.segments,
            min_rating=self.min_rating,
        )

    def report(self, figures: PerUser, model: Scorer) -> EvaluationReport:
        return report_of(
            figures,
            model,
            train=self.known,
            held_out=self.held_out,
            ks=self.ks,
            catalog=self.side.item_features,
        )


def _kinds(popularity: PopularityModel) -> dict[PopularityKind, PopularityModel]:
    kinds: dict[PopularityKind, PopularityModel] = {"global": replace(popularity, slices={})}
    if "segment" in popularity.slices:
        kinds["segment"] = popularity
    return kinds


def _flattery(rival: str, trained_until: datetime, starts_at: datetime) -> str:
    if trained_until <= starts_at:
        return ""
    return (
        f"; {rival} has been trained until {trained_until:%Y-%m-%d}, after the test period's "
        f"beginning on {starts_at:%Y-%m-%d}, which flatters it"
    )


def _unmeasured(version: str, error: ArtifactError) -> Check:
    reason = f"version {version} cannot be loaded, so there is nothing to beat: {error}"
    return Check(name=f"beats version {version}", passed=True, reason=reason)


def _verdict(checks: Sequence[Check], champion: tuple[str, Path] | None) -> Verdict:
    failed = [check for check in checks if not check.passed]
    if not failed:
        # The last comparison is with what serves now, if anything does.
        comparison = [check for check in checks if check.name.startswith("beats")][-1]
        return Verdict(
            promoted=True,
            reason=f"promoted, as all {len(checks)} checks hold: {comparison.reason}",
            checks=tuple(checks),
        )
    stays = "no model serves yet" if champion is None else f"version {champion[0]} goes on serving"
    also = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return Verdict(
        promoted=False,
        reason=f"not promoted, {stays}: the check {failed[0].name!r} fails{also}: "
        f"{failed[0].reason}",
        checks=tuple(checks),
    )
