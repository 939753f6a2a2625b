"""Events of the newest dataset to segments in the feature store: ``python -m tune_jobs.segment``.

A recipe: every step is a library call.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from perso.data.prepared import PreparedData
from perso.distributed.cluster import connect
from perso.distributed.interactions import latest
from perso.distributed.segments import segment_customers
from perso.distributed.trials import flat
from perso.errors import PersoError
from perso.features.store import open_features
from perso.registry import CLUSTERS_NAME, Registry
from perso.schema import SPLITS
from perso.segments.cluster_model import ClusterModel
from perso.segments.spec import SegmentSpec
from perso.segments.standing import clusters_folder
from perso.segments.summary import WeekSummary
from perso.spec import load_spec, spec_to_dict
from perso.workspace import Workspace
from tune_jobs.spec import JobSpec

logger = logging.getLogger(__name__)


def run(
    spec: SegmentSpec,
    data: PreparedData,
    workspace: Workspace,
    *,
    as_ofs: Sequence[datetime],
    created: datetime | None = None,
    sync: bool = True,
) -> list[WeekSummary]:
    """Write the segments as of each instant and bring the newest online; needs a connected Ray.

    Without ``created`` rows are a replay: they count as known from their as-of instant, because
    they hold what a run at that instant would have written. An event that arrived later than it
    happened is counted all the same; the dataset does not say when it arrived. The clusters of the
    newest instant are registered with what they were chosen by.

    Args:
        spec: How customers are measured, scored and grouped.
        data: The dataset whose events count.
        workspace: Where the feature store is.
        as_ofs: Aware instants, at least one; the same instant again replaces its rows.
        created: From when the rows count as known: for a nightly run, when it runs.
        sync: Whether the newest rows go online.

    Returns:
        What to tell of each instant, oldest first.

    Raises:
        ValueError: If no instant is given, one has no time zone, or ``created`` is before one.
        InputError: If no user has an event before one of the instants.
        FeatureStoreError: If the feature store cannot be reached.
    """
    features = open_features(workspace)
    features.apply()
    summaries = segment_customers(data, workspace, as_ofs=as_ofs, spec=spec, created=created)
    _register_clusters(spec, data, workspace, as_of=max(as_ofs))
    if sync:
        features.sync()
    return summaries


def _register_clusters(
    spec: SegmentSpec, data: PreparedData, workspace: Workspace, *, as_of: datetime
) -> None:
    """The fit that assigned the newest clusters, as the champion of its own registered model."""
    folder = clusters_folder(workspace.segments, as_of)
    if folder is None:
        return
    model = ClusterModel.load(folder)
    registry = Registry(workspace, name=CLUSTERS_NAME)
    tags = {"data_key": data.key, "as_of": as_of.isoformat(), "fit": model.fit_id}
    known = registry.champion()
    if known is not None and known.tags.get("fit") == model.fit_id:
        return
    run_id = registry.open_run("clusters", params=flat(spec_to_dict(spec.clusters)), tags=tags)
    registry.log_metrics(run_id, model.scores)
    version = registry.register(folder, run_id=run_id, tags=tags).version
    registry.promote(version, why="the newest fit")
    registry.close_run(run_id)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 with one sentence where the user can put it right."""
    parser = argparse.ArgumentParser(prog="python -m tune_jobs.segment", description=__doc__)
    parser.add_argument("--spec", help="YAML job file; its segments section is used")
    parser.add_argument("--root", help="workspace folder [$PERSO_ROOT, or .perso]")
    parser.add_argument("--address", help="Ray cluster [$RAY_ADDRESS, or a private one]")
    parser.add_argument(
        "--as-of",
        type=datetime.fromisoformat,
        action="append",
        help="count events before this instant, UTC unless it says otherwise; may be repeated "
        "[the ends of train, validation and test]",
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    as_ofs = [i if i.tzinfo else i.replace(tzinfo=UTC) for i in given.as_of or ()]
    try:
        job = load_spec(JobSpec, given.spec) if given.spec else JobSpec()
        workspace = Workspace.open(given.root)
        data = latest(workspace)
        as_ofs = as_ofs or [data.split_end(split) for split in SPLITS]
        connect(given.address)
        run(job.segments, data, workspace, as_ofs=as_ofs)
    except PersoError as error:
        print(f"segment: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
