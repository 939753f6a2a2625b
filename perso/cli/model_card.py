"""What is known of one model version, put together from the registry and its bundle."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from perso.errors import InputError
from perso.models.bundle import read_manifest
from perso.registry import ModelVersion, Registry
from perso.tuning.gate import VERDICT_TAG, Verdict


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """One version."""

    version: str
    aliases: tuple[str, ...]
    trained_until: str
    created_at: str
    lineage: Mapping[str, str]
    """``data_key``, ``data_hash``, git commit, run and folder."""
    settings: Mapping[str, Any]
    """The family's, complete."""
    metrics: Mapping[str, float]
    """Over all users of the test period; without those that were not measured."""
    per_segment: Mapping[str, Mapping[str, float]]
    num_users: int | None
    """Users behind ``metrics``; None where no test is on record."""
    num_users_by_segment: Mapping[str, int]
    popularity: Mapping[str, float]
    """Of the better kind of popularity on the same users."""
    verdict: Verdict | None
    """None: registered by something that asks no gate."""
    reports: tuple[str, ...]
    """Files beside the run."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two versions, each as it did on its own test period."""

    first: ModelCard
    second: ModelCard
    metric: str
    """What is shown per segment."""

    @property
    def same_data(self) -> bool:
        """Whether both were tested on one dataset, so that differences mean something."""
        return self.first.lineage.get("data_key") == self.second.lineage.get("data_key")

    @property
    def overall(self) -> dict[str, tuple[float, float]]:
        """Both values of every metric that both have."""
        return _pairs(self.first.metrics, self.second.metrics)

    @property
    def per_segment(self) -> dict[str, dict[str, tuple[float, float]]]:
        """The same for every segment that both have."""
        theirs = self.second.per_segment
        return {
            segment: _pairs(metrics, theirs[segment])
            for segment, metrics in self.first.per_segment.items()
            if segment in theirs
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        versions = (self.first.version, self.second.version)
        return {
            "versions": list(versions),
            "same_data": self.same_data,
            "overall": _differences(self.overall, versions),
            "per_segment": {
                segment: _differences(pairs, versions)
                for segment, pairs in self.per_segment.items()
            },
        }


def card_of(registry: Registry, version: str) -> ModelCard:
    """Everything about one version.

    Raises:
        InputError: If there is no such version.
        ArtifactError: If its bundle cannot be fetched or read.
    """
    found = registry.version(version)
    manifest = read_manifest(found.folder)
    tested = manifest["metrics"].get("model", {})
    popularity = manifest["metrics"].get("popularity", {})
    tags = {name: value for name, value in found.tags.items() if name != VERDICT_TAG}
    return ModelCard(
        version=found.version,
        aliases=found.aliases,
        trained_until=manifest["trained_until"],
        created_at=manifest["created_at"],
        lineage={
            "data_key": manifest["data_key"],
            **tags,
            "run": found.run_id,
            "folder": str(found.folder),
        },
        settings=manifest["spec"].get("model", {}),
        metrics=_measured(tested.get("overall", found.metrics)),
        per_segment={
            name: _measured(metrics) for name, metrics in tested.get("per_segment", {}).items()
        },
        num_users=tested.get("num_users"),
        num_users_by_segment=tested.get("num_users_by_segment", {}),
        popularity=_measured(popularity.get("overall", {})),
        verdict=verdict_of(found),
        reports=tuple(registry.artifacts(found.run_id)),
    )


def verdict_of(version: ModelVersion) -> Verdict | None:
    """What the gate said of a version, None where it was not asked."""
    text = version.tags.get(VERDICT_TAG)
    return None if text is None else Verdict.from_json(text)


def compare_cards(first: ModelCard, second: ModelCard, *, metric: str | None) -> Comparison:
    """Two versions side by side; per segment by the NDCG of the longest list if not said.

    Raises:
        InputError: If a metric is named that both do not have.
    """
    both = _pairs(first.metrics, second.metrics)
    longest = max((m for m in both if m.startswith("ndcg@")), key=_list_length, default="ndcg")
    if metric is not None and metric not in both:
        raise InputError(
            f"versions {first.version} and {second.version} do not both have {metric!r}; "
            f"both have: {', '.join(both) or 'nothing in common'}"
        )
    return Comparison(first=first, second=second, metric=metric or longest)


def _list_length(metric: str) -> int:
    return int(metric.split("@")[1])


def _measured(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {
        name: value
        for name, value in metrics.items()
        if value is not None and not math.isnan(value)
    }


def _pairs(
    first: Mapping[str, float], second: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    return {name: (value, second[name]) for name, value in first.items() if name in second}


def _differences(
    pairs: Mapping[str, tuple[float, float]], versions: tuple[str, str]
) -> dict[str, dict[str, float]]:
    return {
        name: {
            **dict(zip(versions, values, strict=True)),
            "difference": values[1] - values[0],
        }
        for name, values in pairs.items()
    }
