"""Events of the newest dataset to segments in the feature store: ``python -m tune_jobs.segment``.

A recipe: every step is a library call.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from perso.data.prepared import PreparedData
from perso.distributed.cluster import connect
from perso.distributed.interactions import latest
from perso.distributed.segments import compute_segments
from perso.errors import InputError, PersoError
from perso.features.store import open_features
from perso.schema import SPLITS
from perso.segments.rfm import BROWSERS, RfmSpec
from perso.spec import load_spec
from perso.workspace import Workspace
from tune_jobs.spec import JobSpec

logger = logging.getLogger(__name__)


def run(
    spec: RfmSpec, data: PreparedData, workspace: Workspace, *, as_ofs: Sequence[datetime]
) -> dict[datetime, dict[str, int]]:
    """Write the segments as of each instant and bring the newest online; needs a connected Ray.

    Rows are a replay: they count as known from their as-of instant, because they hold what a run
    at that instant would have written. An event that arrived later than it happened is counted
    all the same; the dataset does not say when it arrived.

    Args:
        spec: How customers are measured.
        data: The dataset whose events count.
        workspace: Where the feature store is.
        as_ofs: Aware instants, at least one; the same instant again replaces its rows.

    Returns:
        Per instant the number of users by segment, largest first.

    Raises:
        ValueError: If no instant is given or one has no time zone.
        InputError: If no user has an event before one of the instants.
        FeatureStoreError: If the feature store cannot be reached.
    """
    if not as_ofs:
        raise ValueError("as_ofs is empty; give at least one instant")
    features = open_features(workspace)
    features.apply()
    counts = {}
    for as_of in sorted(as_ofs):
        started = time.perf_counter()
        rows = compute_segments(data, as_of, spec)
        if not len(rows):
            raise InputError(f"no event of a known user before {as_of}; give a later instant")
        features.write_rfm(rows)
        counts[as_of] = _users_by_segment(rows)
        logger.info(
            "segments: %d users as of %s, %d never bought (%.1f s)",
            len(rows),
            as_of,
            counts[as_of].get(BROWSERS, 0),
            time.perf_counter() - started,
        )
    features.materialize(max(as_ofs))
    return counts


def _users_by_segment(rows: pa.Table) -> dict[str, int]:
    counted = pc.value_counts(rows["segment"]).to_pylist()
    pairs = [(entry["values"], entry["counts"]) for entry in counted]
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


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
