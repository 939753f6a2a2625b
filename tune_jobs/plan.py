"""What a search would try and about what it would take; needs no cluster and runs nothing."""

import logging

from perso.data.prepared import PreparedData
from perso.errors import InputError
from perso.spec import spec_to_dict
from perso.tuning.estimate import Estimate, estimate_trials
from perso.tuning.points import Point, planned_points
from perso.workspace import Workspace
from tune_jobs.spec import JobSpec

logger = logging.getLogger(__name__)


def plan(job: JobSpec, workspace: Workspace) -> tuple[list[Point], dict[int, Estimate]]:
    """The trials of a job's search, and estimates of those where the data are prepared already.

    Without the data, or where the searcher waits for results, there is nothing to estimate and
    the log says so.
    """
    if job.search.searcher == "tpe":
        logger.info("plan: searcher tpe chooses each trial by the results of those before")
        return [], {}
    points = planned_points(job.search)
    data = _prepared(job, workspace)
    if data is None:
        logger.info("plan: these data are not prepared yet; `perso prepare` first for estimates")
        return points, {}
    return points, estimate_trials(job.search, points, data.interactions("train"))


def _prepared(job: JobSpec, workspace: Workspace) -> PreparedData | None:
    """The dataset that was prepared last, if it is this job's."""
    from perso.distributed.interactions import PLACE, latest

    try:
        data = latest(workspace)
    except InputError:
        return None
    resolved = spec_to_dict(job.prepare)
    asked = {name: value for name, value in resolved.items() if name not in PLACE}
    shop = resolved["shop"] if job.prepare.source == "synthetic" else None
    found = data.manifest
    return data if (found["spec"], found["source"].get("shop")) == (asked, shop) else None
