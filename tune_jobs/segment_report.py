"""The newest segments as one HTML page: ``perso segments report``. A recipe of library calls."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perso.dictionary import ITEM_PROFILE, USER_ACTIVITY, USER_AFFINITIES, USER_CLUSTERS
from perso.errors import InputError
from perso.features.rows import FeatureRows
from perso.segments.cluster_model import ClusterModel
from perso.segments.report.render import render_report
from perso.segments.standing import last_standing, read_spec, read_summaries
from perso.workspace import Workspace

POINTS = 2_000
"""Customers drawn in the picture of the clusters."""


def write_report(workspace: Workspace, out: Path) -> None:
    """Write the page on everything that ``perso segments run`` has kept.

    Raises:
        InputError: If no segments were computed yet, or the file cannot be written.
    """
    weeks = read_summaries(workspace.segments)
    if not weeks:
        raise InputError(f"no segments in {workspace.root}; run `perso segments run` first")
    standing = last_standing(workspace.segments)
    assert standing is not None
    points, info = None, None
    if standing.clusters is not None:
        points = _points(standing.clusters, workspace)
        info = standing.clusters.describe()
    page = render_report(
        weeks,
        points=points,
        model_info=info,
        currency=_currency(workspace),
        window_weeks=read_spec(workspace.segments, standing.as_of).measures.window_weeks,
    )
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error


def _currency(workspace: Workspace) -> str:
    """The one currency of the catalogue; empty where it names none, or several."""
    rows = FeatureRows(workspace)
    cards = rows.read_rows(ITEM_PROFILE.name, rows.written()[-1], columns=["currency"])
    named = pc.unique(cards["currency"]).drop_null().to_pylist()
    return str(named[0]) if len(named) == 1 else ""


def _points(model: ClusterModel, workspace: Workspace) -> pa.Table:
    """A sample of the newest customers on the first two principal components, without ids."""
    rows = FeatureRows(workspace)
    as_of = rows.written()[-1]
    columns: dict[str, Any] = {}
    for view in (USER_ACTIVITY, USER_AFFINITIES, USER_CLUSTERS):
        wanted = {*model.features, "cluster_label"} & {*view.feature_names}
        if wanted:
            table = rows.read_rows(view.name, as_of, columns=sorted(wanted))
            columns |= {name: table[name] for name in wanted}
    table = pa.table(columns)
    drawn = np.random.default_rng(0).permutation(len(table))[:POINTS]
    sample = table.take(pa.array(np.sort(drawn)))
    sample = sample.filter(sample["cluster_label"].is_valid())
    x_N, y_N = model.project(sample).T
    return pa.table({"x": x_N, "y": y_N, "cluster_label": sample["cluster_label"]})
