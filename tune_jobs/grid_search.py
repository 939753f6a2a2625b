"""Events to a tested, registered and perhaps promoted model: ``python -m tune_jobs.grid_search``.

Runs here, or on a cluster with ``ray job submit --working-dir . -- python -m
tune_jobs.grid_search --spec tune_jobs/specs/quick.yaml``. A recipe: every step is a library call.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import datetime

from perso.data.prepared import PreparedData
from perso.distributed.cluster import connect
from perso.distributed.interactions import prepare
from perso.distributed.tuning import run_search
from perso.errors import PersoError
from perso.features.customers import read_customers
from perso.features.store import Features, open_features
from perso.models.side_data import SideData
from perso.schema import SPLITS
from perso.tuning.result import SearchResult
from perso.workspace import Workspace
from tune_jobs import segment
from tune_jobs.report import print_report
from tune_jobs.spec import JobSpec, load_job


def run(job: JobSpec, workspace: Workspace, *, resume: bool = False) -> SearchResult:
    """Prepare and segment what is not there yet, search, test and judge the winner.

    Each period is measured by what was known of customers when it began, read back from the
    feature store as any other reader would; those at the end of the data are left online for the
    service.

    Args:
        job: What to prepare, segment and search.
        workspace: Where everything goes.
        resume: Go on with the search that was interrupted.

    Raises:
        InputError: If the input cannot be used, a period is empty, no node holds a trial, or
            there is nothing to resume.
        FeatureStoreError: If segments cannot be written or read.
        SearchError: If no trial finished.
    """
    data = prepare(job.prepare, workspace)
    segment.run(job.segments, data, workspace, as_ofs=[data.split_end(split) for split in SPLITS])
    features = open_features(workspace)
    return run_search(
        job.search,
        data,
        workspace,
        before_validation=_known_before(features, data, as_of=data.split_end("train")),
        before_test=_known_before(features, data, as_of=data.split_end("validation")),
        resume=resume,
    )


def _known_before(features: Features, data: PreparedData, *, as_of: datetime) -> SideData:
    segments, attributes = read_customers(features, data.users, as_of=as_of)
    return SideData(segments=segments, user_features=attributes)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 with one sentence where the user can put it right."""
    parser = argparse.ArgumentParser(prog="python -m tune_jobs.grid_search", description=__doc__)
    parser.add_argument("--spec", required=True, help="YAML job file")
    parser.add_argument("--source", help="layout of the input [the job file's]")
    parser.add_argument("--path", help="input file, folder or URI [the job file's]")
    parser.add_argument("--catalog", help="catalogue file [the job file's]")
    parser.add_argument("--root", help="workspace folder [$PERSO_ROOT, or .perso]")
    parser.add_argument("--address", help="Ray cluster [$RAY_ADDRESS, or a private one]")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the search that was interrupted"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("ray", "alembic", "mlflow", "feast"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        job = load_job(given.spec, source=given.source, path=given.path, catalog=given.catalog)
        workspace = Workspace.open(given.root)
        connect(given.address)
        print_report(run(job, workspace, resume=given.resume))
    except PersoError as error:
        print(f"grid_search: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
