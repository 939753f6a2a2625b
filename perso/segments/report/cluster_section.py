"""The report's section on the clusters: where they lie, what sets them apart, how found."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perso.pages.number_text import percent
from perso.pages.page import paragraph, picture, section
from perso.pages.table import Cell, Table
from perso.segments.group_figures import numbers
from perso.segments.migration import GONE, NEW, NO_LABEL
from perso.segments.names import NOISE, display_name
from perso.segments.report.colors import cluster_colors
from perso.segments.report.migration_section import migration_table
from perso.segments.report.pictures import draw_scatter
from perso.segments.report.segment_sections import (
    figure_cells,
    group_head,
    hidden_cells,
    shown_groups,
)
from perso.segments.summary import WeekSummary

_TOLD_ELSEWHERE = {"explained_variance_2d"}


def cluster_section(
    week: WeekSummary,
    before: WeekSummary | None,
    points: pa.Table | None,
    model_info: Mapping[str, Any],
    *,
    currency: str,
    window: str,
) -> str:
    """Everything about the clusters; the week before tells the names of those that are gone."""
    title = "Clusters: groups of like customers"
    groups = [group for group in week.clusters if group.key != NO_LABEL]
    if not groups:
        return section("clusters", title, paragraph("No clusters were fitted."))
    # Largest first, noise last: the order of the numbers in the picture.
    groups.sort(key=lambda group: (group.key == NOISE, -group.num_users, group.key))
    shown = {group.key for group in shown_groups(week.clusters, week.min_segment_size)}
    total = sum(group.spend for group in week.clusters)
    names = {g.key: display_name(g.key) if g.label == g.key else g.label for g in groups}
    colors = cluster_colors([group.key for group in groups])
    apart = model_info.get("clusters", {})
    rows = []
    for place, group in enumerate(groups, 1):
        told = apart.get(group.key, "")
        sentence = told if isinstance(told, str) else ", ".join(map(str, told))
        name = Cell(
            text=names[group.key],
            small=sentence,
            swatch=colors[group.key],
            number="" if group.key == NOISE else str(place),
        )
        share = group.spend / total if total > 0 else 0.0
        cells = figure_cells(group, share) if group.key in shown else hidden_cells(8)
        rows.append([name, *cells])
    parts = [
        paragraph(
            "Segments follow rules about recency, frequency and spend. Clusters come from all "
            "behaviour at once: customers in a cluster resemble each other, whatever the rules say."
        )
    ]
    if points is not None and len(points):
        told_names = {key: name for key, name in names.items() if key in shown}
        parts.append(_scatter(points, colors, told_names, model_info))
    parts.append(
        Table(
            head=group_head("Cluster", currency),
            rows=rows,
            caption="The largest first; the numbers are those in the picture. In small type: what "
            "sets the cluster apart; a number in brackets says how many usual deviations it lies "
            f"above or below the typical customer. Spend and orders are counted {window}.",
        ).html()
    )
    parts.append(_how_found(model_info))
    if week.cluster_migration is not None:
        order = [group.key for group in groups]
        order += [key for key in week.cluster_migration.labels if key not in order]
        retired = {} if before is None else {group.key: group.label for group in before.clusters}
        known = {key: name for key, name in retired.items() if name != key} | names
        called = {key: known.get(key, display_name(key)) for key in [*order, NEW, GONE]}
        numbered = {g.key: str(place) for place, g in enumerate(groups, 1) if g.key != NOISE}
        row_names = called | {key: f"{text} · {called[key]}" for key, text in numbered.items()}
        parts.append("<h3>Who moved between clusters since the week before</h3>\n")
        parts.append(
            migration_table(
                week.cluster_migration,
                week,
                order,
                what="cluster",
                row_names=row_names,
                column_names=called | numbered,
            )
        )
    return section("clusters", title, *parts)


def _scatter(
    points: pa.Table,
    colors: Mapping[str, str],
    names: Mapping[str, str],
    model_info: Mapping[str, Any],
) -> str:
    by_name = {name: key for key, name in names.items()} | {key: key for key in names}
    labels = pc.fill_null(points["cluster_label"].cast(pa.string()), NO_LABEL).to_pylist()
    groups_N = np.array([by_name.get(label, NO_LABEL) for label in labels], dtype=object)
    x_N, y_N = numbers(points["x"]), numbers(points["y"])
    is_drawn_N = np.isfinite(x_N) & np.isfinite(y_N) & np.isin(groups_N, list(names))
    if not is_drawn_N.any():
        return ""
    num_drawn = int(is_drawn_N.sum())
    svg = draw_scatter(x_N[is_drawn_N], y_N[is_drawn_N], groups_N[is_drawn_N], colors, names)
    explained = model_info.get("explained_variance_2d")
    told = (
        ""
        if not isinstance(explained, int | float)
        else f" The two axes hold {percent(float(explained), 0)} of the differences."
    )
    return picture(
        svg,
        alt="Scatter of a sample of customers on two principal components, coloured by cluster; "
        "the numbers are those of the table below.",
        caption=f"How to read it: each of the {num_drawn:,} points is one customer of a sample; "
        "near points behave alike. The axes are the two directions in which customers "
        f"differ most.{told} Clusters that overlap here can still be apart in further directions.",
    )


def _how_found(model_info: Mapping[str, Any]) -> str:
    """The chosen clustering, its scores, and what else was tried."""
    facts = [
        f"{_words(name)}: {_plain(value)}"
        for name, value in model_info.items()
        if isinstance(value, str | int | float | bool) and name not in _TOLD_ELSEWHERE
    ]
    candidates: Sequence[Mapping[str, Any]] = model_info.get("candidates", ())
    if not facts and not candidates:
        return ""
    parts = ["<h3>How the clusters were found</h3>\n"]
    if facts:
        parts.append(paragraph(" · ".join(facts)))
    if candidates:
        columns = list(dict.fromkeys(n for tried in candidates for n in tried if n != "chosen"))
        is_number = {
            name: any(
                isinstance(tried.get(name), int | float) and not isinstance(tried[name], bool)
                for tried in candidates
            )
            for name in columns
        }
        rows = [
            [Cell(text=_words(str(tried.get(columns[0], "–"))))]
            + [
                Cell(text=_plain(tried.get(name)), is_number=is_number[name])
                for name in columns[1:]
            ]
            + [Cell(text="chosen" if tried.get("chosen") else "")]
            for tried in candidates
        ]
        chosen = frozenset(place for place, tried in enumerate(candidates) if tried.get("chosen"))
        head = [_words(name) + ("#" if is_number[name] else "") for name in columns]
        parts.append(
            Table(
                head=[*head, ""],
                rows=rows,
                marked=chosen,
                caption="Every clustering that was tried. Silhouette: 1 is well apart, 0 is on the "
                "border. BIC: lower is better. Stability: agreement between fits on resampled "
                "customers, 1 is perfect. Coverage: share of the customers in a cluster.",
            ).html()
        )
    return "".join(parts)


def _words(name: str) -> str:
    words = {
        "bic": "BIC",
        "dbscan": "DBSCAN",
        "hdbscan": "HDBSCAN",
        "kmeans": "K-means",
        "noise": "Noise",
        "share": "Least share of a cluster",
    }
    return words.get(name) or display_name(name.replace("num_", "number_of_"))


def _plain(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else _words(str(value))
