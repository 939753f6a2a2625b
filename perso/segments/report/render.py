"""The segment report: one HTML page that a marketer and a data scientist read from top to bottom.

Decides what is told, in which order, and that nothing about fewer than ``min_segment_size``
customers is. It computes no figure: every number on the page stands in a ``WeekSummary`` or in
what is known of the clusters. The page asks for nothing but itself, and the same input gives the
same bytes. A history of a year takes about two seconds and half a megabyte.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pyarrow as pa

from perso.pages.number_text import count, counted, number, percent, rounded_money
from perso.pages.page import bullets, contents, document, paragraph, tiles
from perso.segments.group_figures import GroupFigures
from perso.segments.migration import GONE, NEW, NO_LABEL
from perso.segments.names import OTHER, display_name
from perso.segments.report.cluster_section import cluster_section
from perso.segments.report.feature_section import distribution_section
from perso.segments.report.history_section import history_section, stability_section
from perso.segments.report.migration_section import migration_section
from perso.segments.report.segment_sections import (
    rfm_section,
    segment_section,
    shown_groups,
    window_words,
)
from perso.segments.summary import WeekSummary

_CONTENTS = (
    ("segments", "Segments"),
    ("rfm", "Recency and frequency"),
    ("migration", "Who moved"),
    ("history", "Over the weeks"),
    ("clusters", "Clusters"),
    ("stability", "Stability"),
    ("distributions", "Features"),
)


def render_report(
    weeks: Sequence[WeekSummary],
    *,
    points: pa.Table | None = None,
    model_info: Mapping[str, Any] | None = None,
    title: str = "Customer segments",
    currency: str = "",
    window_weeks: int | None = None,
) -> str:
    """The report on the newest of some weeks, as one HTML page.

    Args:
        weeks: One or more, in any order; the others are its history.
        points: A sample of customers of the newest week without their ids: ``x`` and ``y`` on the
            first two principal components, and ``cluster_label`` (null: no cluster).
        model_info: What is known of the clustering, all of it optional: ``clusters`` (id to what
            sets it apart, a sentence or several), ``candidates`` (a mapping per clustering that
            was tried; ``chosen`` is true for one), and any further name with a plain value.
        title: Stands above the page.
        currency: Code put before amounts, such as GBP.
        window_weeks: Length of the window that spend and orders are counted over.

    Raises:
        ValueError: If there is no week, or two of the same instant.
    """
    ordered = sorted(weeks, key=lambda week: week.as_of)
    if not ordered:
        raise ValueError("weeks is empty; give one or more")
    if len({week.as_of for week in ordered}) < len(ordered):
        raise ValueError("two weeks have the same as_of; give one summary per instant")
    week, before = ordered[-1], ordered[-2] if len(ordered) > 1 else None
    info = model_info or {}
    window = window_words(window_weeks)
    return document(
        title=title,
        header=f"<h1>{escape(title)}</h1>\n"
        f'<div class="when">As of {_instant(week)}</div>\n'
        f"{paragraph(_headline(week, window), 'lead')}{contents(_CONTENTS)}",
        main=f"{_tiles(week, currency, window)}{_alerts(week)}"
        f"{segment_section(week, currency=currency, window=window)}"
        f"{rfm_section(week, currency=currency)}"
        f"{migration_section(week)}"
        f"{history_section(ordered)}"
        f"{cluster_section(week, before, points, info, currency=currency, window=window)}"
        f"{stability_section(ordered)}"
        f"{distribution_section(week)}",
        footer=_footer(week),
    )


def _instant(week: WeekSummary) -> str:
    return f"{week.as_of:%A}, {week.as_of.day} {week.as_of:%B %Y, %H:%M %Z}".strip()


def _headline(week: WeekSummary, window: str) -> str:
    """What a reader in a hurry takes away."""
    if not week.num_users:
        return "There are no customers yet."
    groups = shown_groups(week.segments, week.min_segment_size)
    named = [group for group in groups if group.key not in {OTHER, NO_LABEL}]
    sentences = [
        f"On {week.as_of.day} {week.as_of:%B %Y} {counted(week.num_users, 'customer')} were in "
        f"{counted(len(week.segments), 'segment')}."
    ]
    if named:
        biggest = max(named, key=lambda group: group.num_users)
        sentences.append(
            f"The biggest is {display_name(biggest.key)} with {count(biggest.num_users)} "
            f"customers ({percent(biggest.share, 0)})."
        )
        sentences += _most_value(week, named, window)
    if week.segment_migration is not None:
        moves = [
            move
            for move in week.segment_migration.moves(minimum=week.min_segment_size)
            if not {move.before, move.after} & {NEW, GONE, NO_LABEL, OTHER}
        ]
        if moves:
            move = moves[0]
            sentences.append(
                f"The biggest move since the week before: {counted(move.num_users, 'customer')} "
                f"from {display_name(move.before)} to {display_name(move.after)}."
            )
        else:
            sentences.append("Nobody moved between segments in numbers that can be shown.")
    alerts = "no alert" if not week.alerts else counted(len(week.alerts), "alert")
    return " ".join([*sentences, f"There {'are' if len(week.alerts) > 1 else 'is'} {alerts}."])


def _most_value(week: WeekSummary, named: Sequence[GroupFigures], window: str) -> list[str]:
    total = sum(group.spend for group in week.segments)
    if total <= 0:
        return []
    best = max(named, key=lambda group: group.spend)
    return [
        f"{display_name(best.key)} are {percent(best.share, 0)} of the customers and bring "
        f"{percent(best.spend / total, 0)} of the spend {window}."
    ]


def _tiles(week: WeekSummary, currency: str, window: str) -> str:
    total = sum(group.spend for group in week.segments)
    kept = None if week.segment_migration is None else week.segment_migration.share_kept
    figures = [
        (count(week.num_users), "customers"),
        (f"{currency} {rounded_money(total)}".strip(), f"spend {window}"),
        (percent(kept), "of the customers stayed in their segment"),
        (
            number(week.segment_psi, 3),
            f"shift of the segment sizes (PSI; alert above {week.monitor.max_psi:g})",
        ),
    ]
    return tiles(figures)


def _alerts(week: WeekSummary) -> str:
    sentences = [alert.sentence for alert in week.alerts]
    if sentences:
        return '<h3 id="alerts">Look at this first</h3>\n' + bullets(sentences, "alerts")
    if week.segment_migration is None:
        return paragraph("No alert: there is no week before to compare with.", "calm")
    return paragraph("No alert: segments and clusters are as steady as they should be.", "calm")


def _footer(week: WeekSummary) -> str:
    return paragraph(
        f"Figures about fewer than {counted(week.min_segment_size, 'customer')} are hidden. "
        "Where a hidden figure could be worked out from a total, the next smallest one is "
        "hidden with it. Customers who never bought are Browsers; groups too small to be "
        "named are together in Other."
    )
