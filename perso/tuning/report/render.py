"""The report of a finished search, for who decides about it and for who runs the next one.

Decides what is told and in which order: the answer in plain words first, then the evidence. It
measures nothing: every figure is one of the result or computed of several. The HTML page asks for
nothing but itself; the Markdown, for a pull request, has the same sentences and tables without
the pictures. The same result gives the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from html import escape
from pathlib import Path

from perso.pages.markdown import escape_markdown
from perso.pages.page import contents, document, paragraph
from perso.pages.parts import Section
from perso.tuning.report.cost_section import cost_section
from perso.tuning.report.curve_section import curve_section
from perso.tuning.report.leaderboard_section import leaderboard_section
from perso.tuning.report.lineage_section import lineage_section
from perso.tuning.report.scoreboard import Scoreboard
from perso.tuning.report.segment_section import segment_section
from perso.tuning.report.setting_sections import each_section, together_section
from perso.tuning.report.stylesheet import STYLE
from perso.tuning.report.trade_off_section import trade_off_section
from perso.tuning.report.verdict_section import first_screen, headline, verdict_section
from perso.tuning.result import SearchResult


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """Where a report lies."""

    html: Path
    """One self-contained page."""
    markdown: Path
    """The same without pictures."""


def write_report(result: SearchResult, folder: Path) -> SearchReport:
    """Both forms of the report, written into a folder that is made if need be.

    Args:
        result: The finished search.
        folder: Gets ``report.html`` and ``report.md``; earlier ones are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = SearchReport(html=folder / "report.html", markdown=folder / "report.md")
    board = Scoreboard(result=result)
    sections = _sections(board)
    report.html.write_text(_html(board, sections), encoding="utf-8", newline="\n")
    report.markdown.write_text(_markdown(board, sections), encoding="utf-8", newline="\n")
    return report


def _sections(board: Scoreboard) -> list[Section]:
    return [
        verdict_section(board),
        segment_section(board),
        leaderboard_section(board),
        trade_off_section(board),
        together_section(board),
        each_section(board),
        curve_section(board),
        cost_section(board),
        lineage_section(board),
    ]


def _html(board: Scoreboard, sections: Sequence[Section]) -> str:
    return document(
        title=_title(board),
        header=f"<h1>{escape(_title(board))}</h1>\n"
        f'<div class="when">{escape(_when(board))}</div>\n'
        f"{paragraph(headline(board), 'lead')}"
        f"{''.join(part.html() for part in first_screen(board))}"
        f"{contents([(section.anchor, section.name) for section in sections])}",
        main="".join(section.html() for section in sections),
        footer=paragraph(_footer(board)),
        style=STYLE,
    )


def _markdown(board: Scoreboard, sections: Sequence[Section]) -> str:
    blocks = [
        f"# {escape_markdown(_title(board))}\n",
        f"{escape_markdown(_when(board))}\n",
        f"{escape_markdown(headline(board))}\n",
        *(part.markdown() for part in first_screen(board)),
        *(section.markdown() for section in sections),
        f"{escape_markdown(_footer(board))}\n",
    ]
    return "\n".join(block for block in blocks if block)


def _title(board: Scoreboard) -> str:
    return f"Search {board.spec.name}"


def _when(board: Scoreboard) -> str:
    started = board.result.started_at.astimezone(UTC)
    return f"Begun {started:%A}, {started.day} {started:%B %Y, %H:%M} UTC"


def _footer(board: Scoreboard) -> str:
    return (
        f"The winner was chosen by {board.objective} on the validation period; the test period "
        "was looked at once, after that. Bestsellers are the better of what sells most in the shop "
        "and in the shopper's segment. Every model ranks the whole catalogue; what a shopper had "
        "before is neither recommended nor counted as a hit."
    )
