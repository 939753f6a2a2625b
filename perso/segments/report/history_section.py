"""The report's sections on the weeks so far: sizes of the segments, and how steady they are."""

from collections.abc import Callable, Sequence

from perso.pages.number_text import count, number, percent
from perso.pages.page import bullets, paragraph, picture, section
from perso.pages.table import Cell, Table
from perso.segments.migration import Migration
from perso.segments.names import display_name, in_order
from perso.segments.report.pictures import draw_sizes_over_time, draw_stability
from perso.segments.small_cells import hide_small_sizes
from perso.segments.summary import WeekSummary

_WEEKS_TOLD = 8


def history_section(weeks: Sequence[WeekSummary]) -> str:
    """Sizes of the segments over the weeks."""
    title = "Segment sizes over the weeks"
    keys = in_order(group.key for week in weeks for group in week.segments)
    if len(weeks) < 2 or not keys:
        return section("history", title, paragraph("There is only one week yet."))
    sizes_by_week = [
        hide_small_sizes({g.key: g.num_users for g in week.segments}, week.min_segment_size)
        for week in weeks
    ]
    sizes = {key: [sizes.get(key, 0) for sizes in sizes_by_week] for key in keys}
    rows = []
    for week, sizes_then in list(zip(weeks, sizes_by_week, strict=True))[: -_WEEKS_TOLD - 1 : -1]:
        line = [Cell(text=f"{week.as_of.day} {week.as_of:%b %Y}")]
        line += [Cell(text=count(sizes_then.get(key, 0)), is_number=True) for key in keys]
        rows.append([*line, Cell(text=count(week.num_users), is_number=True)])
    names = {key: display_name(key) for key in keys}
    return section(
        "history",
        title,
        picture(
            draw_sizes_over_time([week.as_of for week in weeks], sizes, names),
            alt=f"Bands: customers per segment over {len(weeks)} weeks; the table below has the "
            "newest numbers.",
            caption="How to read it: the height of a band is the number of customers in the "
            "segment that week, all bands together are all customers. Hidden sizes are not drawn.",
        ),
        Table(
            head=["Week", *(f"{names[key]}#" for key in keys), "All#"],
            rows=rows,
            caption=f"Customers per segment, the newest {len(rows)} weeks.",
            css="turned",
        ).html(),
    )


def stability_section(weeks: Sequence[WeekSummary]) -> str:
    """Shift of sizes, customers who stayed, agreement of the clusters; each with its limit."""
    title = "How steady the segments are"
    if not any(week.segment_migration for week in weeks):
        return section("stability", title, paragraph("There is only one week yet."))
    limits = weeks[-1].monitor
    has_clusters = any(
        week.cluster_migration is not None and week.cluster_migration.adjusted_rand is not None
        for week in weeks
    )
    psi = {"segments": [week.segment_psi for week in weeks]}
    if has_clusters:
        psi["clusters"] = [week.cluster_psi for week in weeks]
    kept = _figures(weeks, lambda week: week.segment_migration, lambda m: m.share_kept)
    agreement = _figures(weeks, lambda week: week.cluster_migration, lambda m: m.adjusted_rand)
    panels = [
        ("Shift of the sizes (PSI)", psi, limits.max_psi, True),
        ("Share who stayed in their segment", {"segments": kept}, limits.min_kept, False),
    ]
    if has_clusters:
        panels.append(
            (
                "Agreement of the clusters (ARI)",
                {"clusters": agreement},
                limits.min_adjusted_rand,
                False,
            )
        )
    rows = [
        [
            Cell(text=f"{week.as_of.day} {week.as_of:%b %Y}"),
            Cell(text=number(week.segment_psi, 3), is_number=True),
            Cell(text=percent(stayed), is_number=True),
            Cell(text=number(week.cluster_psi, 3), is_number=True),
            Cell(text=number(agreed, 3), is_number=True),
            Cell(text=str(len(week.alerts) or "–"), is_number=True),
        ]
        for week, stayed, agreed in list(zip(weeks, kept, agreement, strict=True))[
            : -_WEEKS_TOLD - 1 : -1
        ]
    ]
    return section(
        "stability",
        title,
        picture(
            draw_stability([week.as_of for week in weeks], panels),
            alt="Lines over the weeks: population stability index, share of customers who stayed, "
            "adjusted Rand index, each with its limit; the table below has the newest numbers.",
            caption="How to read it: every point compares a week with the one before. A point in "
            "the red area raises an alert. PSI, population stability index: 0 is no shift of "
            f"sizes, above {limits.max_psi:g} is a large one. ARI, adjusted Rand index: 1 is the "
            "same groups again, 0 is no more alike than by chance.",
        ),
        Table(
            head=[
                "Week",
                "PSI of segments#",
                "Stayed in segment#",
                "PSI of clusters#",
                "ARI of clusters#",
                "Alerts#",
            ],
            rows=rows,
            caption=f"The newest {len(rows)} weeks.",
        ).html(),
        _earlier_alerts(weeks),
    )


def _earlier_alerts(weeks: Sequence[WeekSummary]) -> str:
    """Alerts of the weeks before the newest one, which has its own at the top of the page."""
    told = [
        f"{week.as_of.day} {week.as_of:%b %Y}: {alert.sentence}"
        for week in weeks[-2 : -_WEEKS_TOLD - 1 : -1]
        for alert in week.alerts
    ]
    return "<h3>Earlier alerts</h3>\n" + bullets(told, "moves") if told else ""


def _figures(
    weeks: Sequence[WeekSummary],
    migration_of: Callable[[WeekSummary], Migration | None],
    figure: Callable[[Migration], float | None],
) -> list[float | None]:
    migrations = [migration_of(week) for week in weeks]
    return [None if migration is None else figure(migration) for migration in migrations]
