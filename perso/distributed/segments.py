"""Segments on a Ray cluster: one task per event file, scores on the driver.

All rules are in ``perso.segments.rfm``; this file moves tables.
"""

from datetime import datetime

import pyarrow as pa
import ray

from perso.data.prepared import PreparedData
from perso.distributed.cluster import own_errors
from perso.segments.rfm import RfmSpec, concat_summaries, score_rfm, summarize_file


def compute_segments(
    data: PreparedData, as_of: datetime, spec: RfmSpec, *, created: datetime | None = None
) -> pa.Table:
    """Feature rows of every user with an event before ``as_of``; needs a connected Ray.

    A worker holds one event file; the driver holds one row per user (quintiles need them all),
    about 150 bytes each, and never an event.

    Args:
        data: The prepared dataset; its event files are readable from every node.
        as_of: Aware instant; events at or after it are not counted.
        spec: The measuring window.
        created: From when the rows count as known; ``as_of`` where not given, as for a replay.

    Returns:
        USER_RFM_SCHEMA rows sorted by ``user_id``, equal to those of
        :func:`perso.segments.rfm.compute_rfm` over the same files.

    Raises:
        ValueError: If an instant has no time zone or ``created`` is before ``as_of``.
        ArtifactError: If a user's events are spread over two files.
    """
    summarize = ray.remote(summarize_file)
    with own_errors():
        summaries = ray.get(
            [summarize.remote(path, as_of=as_of, spec=spec) for path in data.event_files]
        )
    return score_rfm(concat_summaries(summaries), as_of=as_of, created=created or as_of)
