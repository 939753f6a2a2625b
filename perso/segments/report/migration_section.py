"""The report's section on who moved since the week before: the moves in words, and the table."""

from collections.abc import Mapping, Sequence

import numpy as np

from perso.pages.number_text import counted, percent
from perso.pages.page import bullets, paragraph, section
from perso.pages.table import Cell, Table
from perso.segments.migration import GONE, NEW, Migration, Move
from perso.segments.names import display_name, in_order
from perso.segments.report.segment_sections import small_count
from perso.segments.summary import WeekSummary

_MOVES_TOLD = 8
_ARRIVALS_TOLD = 3
_MOST_LEVEL = 7  # more column titles than this are turned upright


def migration_section(week: WeekSummary) -> str:
    """Who moved between segments since the week before: the moves in words, then the table."""
    migration = week.segment_migration
    if migration is None:
        text = paragraph("This is the first week: there is nothing to compare it with yet.")
        return section("migration", "Who moved since the week before", text)
    moves = migration.moves(minimum=week.min_segment_size)
    between = [move for move in moves if move.before != NEW and move.after != GONE]
    outside = [move for move in moves if move not in between]
    kept = migration.share_kept
    told = (
        ["No move of so many customers that it can be shown."]
        if not moves
        else [move_sentence(move) for move in between[:_MOVES_TOLD] + outside[:_ARRIVALS_TOLD]]
    )
    intro = (
        "Nobody was there both weeks."
        if kept is None
        else f"{percent(kept)} of the customers who were there both weeks stayed in their segment."
    )
    order = in_order(migration.labels)
    names = {key: display_name(key) for key in [*order, NEW, GONE]}
    return section(
        "migration",
        "Who moved since the week before",
        paragraph(intro + " The largest moves:"),
        bullets(told, "moves"),
        migration_table(
            migration, week, order, what="segment", row_names=names, column_names=names
        ),
    )


def move_sentence(move: Move) -> str:
    """A move in words.

    Example:
        >>> move_sentence(Move(before="champions", after="at_risk", num_users=41))
        '41 customers moved from Champions to At risk.'
    """
    who, before, after = (
        counted(move.num_users, "customer"),
        display_name(move.before),
        display_name(move.after),
    )
    if move.before == NEW:
        return f"{who} were seen for the first time and are now {after}."
    if move.after == GONE:
        return f"{who} of {before} are not there any more."
    return f"{who} moved from {before} to {after}."


def migration_table(
    migration: Migration,
    week: WeekSummary,
    order: Sequence[str],
    *,
    what: str,
    row_names: Mapping[str, str],
    column_names: Mapping[str, str],
) -> str:
    """Who went from where to where, as a table shaded by the share of the row.

    Args:
        migration: The moves.
        week: Tells what is hidden.
        order: The labels as they follow each other.
        what: ``segment`` or ``cluster``.
        row_names: What the labels and NEW are called.
        column_names: What the labels and GONE are called.
    """
    place = {label: row for row, label in enumerate(migration.labels)}
    outside = len(migration.labels)
    counts_FT = migration.counts_FT
    hidden_FT = np.ma.getmaskarray(migration.shown(week.min_segment_size))
    from_keys = [key for key in order if counts_FT[place[key]].any()]
    to_keys = [key for key in order if counts_FT[:, place[key]].any()]
    from_rows = [(place[key], row_names[key]) for key in from_keys]
    to_columns = [(place[key], column_names[key]) for key in to_keys]
    if counts_FT[outside].any():
        from_rows.append((outside, row_names[NEW]))
    if counts_FT[:, outside].any():
        to_columns.append((outside, column_names[GONE]))
    rows = []
    for row, name in from_rows:
        total = max(int(counts_FT[row].sum()), 1)
        line = [Cell(text=name)]
        for column, _ in to_columns:
            size, is_hidden = int(counts_FT[row, column]), bool(hidden_FT[row, column])
            is_stay = row == column and row != outside
            heat = 0.0 if is_hidden or is_stay else (size / total) ** 0.5
            line.append(
                Cell(
                    text=small_count(size, is_hidden, week),
                    heat=heat,
                    css="stay" if is_stay else "",
                )
            )
        rows.append(line)
    return Table(
        head=["from ↓   to →", *(name for _, name in to_columns)],
        rows=rows,
        css="heat turned" if len(to_columns) > _MOST_LEVEL else "heat",
        caption=f"How to read it: each row tells where the customers of one {what} of the week "
        "before are now. Outlined: they stayed. Darker: a larger part of the row moved there. "
        f"<{week.min_segment_size}: fewer than that, hidden; ···: hidden too, so that nobody can "
        "work out its neighbours.",
    ).html()
