"""Where a run of segments left off: per instant the summary and the fit of the clusters.

One folder per instant, named by it, is complete or not there. The next instant follows on from
the newest one before it, so a weekly run and a backfill of a year keep the same names.
"""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from perso.segments.cluster_model import ClusterModel
from perso.segments.spec import SegmentSpec
from perso.segments.summary import WeekSummary
from perso.spec import parse_spec, spec_to_dict

_CLUSTERS: Final = "clusters"
_STATE_FILE: Final = "state.json"
_NAME_FORMAT: Final = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One instant, as far as the next one needs it."""

    as_of: datetime
    clusters: ClusterModel | None
    """None where there were too few customers to fit any."""
    selected_at: datetime | None
    """When algorithm and number of clusters were last chosen."""


def remember(standing: Standing, summary: WeekSummary, spec: SegmentSpec, folder: Path) -> None:
    """Keep an instant with the spec it was made by; the same instant again replaces it."""
    place = folder / instant_name(standing.as_of)
    fresh = folder / f".{place.name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    if standing.clusters is not None:
        standing.clusters.save(fresh / _CLUSTERS)
    selected_at = standing.selected_at.isoformat() if standing.selected_at else None
    state = {
        "selected_at": selected_at,
        "spec": spec_to_dict(spec),
        "summary": summary.to_dict(),
    }
    (fresh / _STATE_FILE).write_text(json.dumps(state))
    shutil.rmtree(place, ignore_errors=True)
    fresh.rename(place)


def last_standing(folder: Path, *, before: datetime | None = None) -> Standing | None:
    """The newest instant that is kept, before another if given; None where there is none.

    Raises:
        ArtifactError: If its clusters are damaged.
    """
    found = [as_of for as_of in _instants(folder) if before is None or as_of < before]
    if not found:
        return None
    place = folder / instant_name(found[-1])
    selected_at = json.loads((place / _STATE_FILE).read_text())["selected_at"]
    clusters = clusters_folder(folder, found[-1])
    return Standing(
        as_of=found[-1],
        clusters=None if clusters is None else ClusterModel.load(clusters),
        selected_at=datetime.fromisoformat(selected_at) if selected_at else None,
    )


def clusters_folder(folder: Path, as_of: datetime) -> Path | None:
    """Where the fit of an instant's clusters is; None where there were too few customers."""
    place = folder / instant_name(as_of) / _CLUSTERS
    return place if place.exists() else None


def read_summaries(folder: Path) -> list[WeekSummary]:
    """What was told of every instant that is kept, oldest first."""
    files = [folder / instant_name(as_of) / _STATE_FILE for as_of in _instants(folder)]
    return [WeekSummary.from_dict(json.loads(file.read_text())["summary"]) for file in files]


def read_spec(folder: Path, as_of: datetime) -> SegmentSpec:
    """What a kept instant was made by.

    Raises:
        InputError: If this perso does not know a key of it.
    """
    text = (folder / instant_name(as_of) / _STATE_FILE).read_text()
    return parse_spec(SegmentSpec, json.loads(text)["spec"], origin=f"segments as of {as_of}")


def instant_name(as_of: datetime) -> str:
    """The folder of an instant; names sort as the instants do."""
    return as_of.astimezone(UTC).strftime(_NAME_FORMAT)


def _instants(folder: Path) -> list[datetime]:
    names = sorted(path.parent.name for path in folder.glob(f"[0-9]*/{_STATE_FILE}"))
    return [datetime.strptime(name, _NAME_FORMAT).replace(tzinfo=UTC) for name in names]
