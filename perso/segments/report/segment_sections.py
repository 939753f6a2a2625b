"""The report's sections on the segments of one week: size and value, and the RFM map."""

from collections.abc import Sequence

import numpy as np

from perso.pages.number_text import HIDDEN, count, counted, money, number, percent
from perso.pages.page import paragraph, picture, section
from perso.pages.table import Cell, Table
from perso.segments.group_figures import BAND_WIDTH, NUM_BANDS, NUM_QUARTILES, GroupFigures
from perso.segments.names import display_name, meaning
from perso.segments.report.colors import segment_colors
from perso.segments.report.pictures import draw_size_and_value
from perso.segments.small_cells import hide_small, hide_small_sizes
from perso.segments.summary import WeekSummary


def window_words(window_weeks: int | None) -> str:
    """Over which time spend and orders are counted, in words."""
    return "in the window" if window_weeks is None else f"in the last {window_weeks} weeks"


def shown_groups(groups: Sequence[GroupFigures], minimum: int) -> list[GroupFigures]:
    """The groups whose figures may be told."""
    sizes = hide_small_sizes({group.key: group.num_users for group in groups}, minimum)
    return [group for group in groups if sizes[group.key] is not None]


def segment_section(week: WeekSummary, *, currency: str, window: str) -> str:
    """Size and value of each segment, as a picture and a table."""
    if not week.segments:
        return section("segments", "Size and value of each segment", paragraph("No customers."))
    shown = {group.key for group in shown_groups(week.segments, week.min_segment_size)}
    total = sum(group.spend for group in week.segments)
    colors = segment_colors([group.key for group in week.segments])
    spend_shares = {group.key: group.spend / total if total > 0 else 0.0 for group in week.segments}
    names = [display_name(group.key) for group in week.segments]
    bars = draw_size_and_value(
        names,
        [group.share if group.key in shown else None for group in week.segments],
        [spend_shares[group.key] if group.key in shown else None for group in week.segments],
        [colors[group.key] for group in week.segments],
    )
    rows = [
        [
            Cell(text=display_name(group.key), small=meaning(group.key), swatch=colors[group.key]),
            *(
                figure_cells(group, spend_shares[group.key])
                if group.key in shown
                else hidden_cells(8)
            ),
        ]
        for group in week.segments
    ]
    return section(
        "segments",
        "Size and value of each segment",
        paragraph(
            "Best customers at the top. Blue segments are active, orange ones are slipping away, "
            "grey ones are gone or have never bought."
        ),
        picture(
            bars,
            alt="Bars: share of customers and share of spend of each segment; the table below "
            "has the numbers.",
            caption=f"How to read it: a segment whose right bar is longer than its left one "
            f"spends more than its numbers suggest. Spend is revenue less refunds {window}.",
        ),
        Table(
            head=group_head("Segment", currency),
            rows=rows,
            caption=f"Spend and orders are counted {window}. Days since the last order: mean over "
            "customers who ever bought. Score: mean composite score, 0 to 1.",
        ).html(),
    )


def group_head(what: str, currency: str) -> list[str]:
    """Column titles of a table of groups."""
    unit = f", {currency}" if currency else ""
    return [
        what,
        "Customers#",
        "Share#",
        f"Spend{unit}#",
        "Share of spend#",
        f"Spend per customer{unit}#",
        "Orders per customer#",
        "Days since last order#",
        "Score#",
    ]


def figure_cells(group: GroupFigures, spend_share: float) -> list[Cell]:
    """The figures of a group in the order of the column titles."""
    texts = [
        count(group.num_users),
        percent(group.share),
        number(group.spend, 0),
        percent(spend_share),
        money(group.mean_spend),
        number(group.mean_orders),
        number(group.mean_recency_days, 0),
        number(group.mean_composite_score, 2),
    ]
    return [Cell(text=text, is_number=True) for text in texts]


def hidden_cells(how_many: int) -> list[Cell]:
    """Cells of a group that is too small to be told of."""
    return [Cell(text=HIDDEN, is_number=True)] + [
        Cell(text="", is_number=True) for _ in range(how_many - 1)
    ]


def rfm_section(week: WeekSummary, *, currency: str) -> str:
    """The map of recency by frequency: how many customers, and what they are worth."""
    cells = {(cell.recency_from, cell.frequency_quartile): cell for cell in week.rfm}
    bands = [band * BAND_WIDTH + 1 for band in reversed(range(NUM_BANDS))]
    quartiles = range(1, NUM_QUARTILES + 1)
    users = np.array([[cells[band, q].num_users for q in quartiles] for band in bands], np.int64)
    # Only the total of all cells is told, so they are one line, not rows and columns.
    hidden = np.ma.getmaskarray(hide_small(users.ravel(), week.min_segment_size))
    hidden = hidden.reshape(users.shape)
    worth = [[cells[band, q].mean_monetary or 0.0 for q in quartiles] for band in bands]
    visible = np.where(hidden, 0, users)
    most_users = max(int(visible.max(initial=0)), 1)
    most_worth = max(float(np.where(visible > 0, worth, 0).max(initial=0)), 1e-9)
    names = []
    for row, band in enumerate(bands):
        age = {0: " · just now", NUM_BANDS - 1: " · longest ago"}.get(row, "")
        names.append(f"{band}–{band + BAND_WIDTH - 1}{age}")
    sizes_table, worth_table = [], []
    for row, name in enumerate(names):
        sizes, means = [Cell(text=name)], [Cell(text=name)]
        for column in range(NUM_QUARTILES):
            size, is_hidden = int(users[row, column]), bool(hidden[row, column])
            heat = 0.0 if is_hidden else size / most_users
            sizes.append(Cell(text=small_count(size, is_hidden, week), heat=heat**0.7))
            is_told = bool(visible[row, column])
            mean = worth[row][column]
            heat = max(mean / most_worth, 0.0) if is_told else 0.0
            means.append(Cell(text=money(mean) if is_told else "", heat=heat**0.7))
        sizes_table.append(sizes)
        worth_table.append(means)
    head = ["Recency score", "1 · fewest", "2", "3", "4 · most"]
    unit = f", {currency}" if currency else ""
    return section(
        "rfm",
        "Recency and frequency",
        paragraph(
            f"The {counted(int(users.sum()), 'customer')} who have ever bought, by how lately and "
            "how often. Good customers are at the top right; who was good and is drifting down "
            "the right side is worth winning back first."
        ),
        '<div class="pair">\n',
        Table(head=head, rows=sizes_table, css="heat", caption="Number of customers").html(),
        Table(head=head, rows=worth_table, css="heat", caption=f"Mean spend ever{unit}").html(),
        "</div>\n",
        paragraph(
            "How to read it: each row is a band of the recency score (100: bought just now), each "
            "column a quarter of the buyers by orders in the last six months; where many ordered "
            "equally often, quarters are of unequal size. Darker is more. Spend is less refunds.",
            "note",
        ),
    )


def small_count(size: int, is_hidden: bool, week: WeekSummary) -> str:
    """A count in a narrow cell: empty for none, ``<k`` or dots where hidden."""
    if is_hidden:
        return f"<{week.min_segment_size}" if size < week.min_segment_size else "···"
    return f"{size:,}" if size else ""
