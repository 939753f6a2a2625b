"""Who won, whether it serves and what shoppers gain, in plain words; then every check."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Final, TypeVar

from perso.models.families import FAMILIES
from perso.pages.markdown import escape_markdown
from perso.pages.number_text import counted
from perso.pages.parts import Heading, Part, Section, Text, Tiles
from perso.pages.table import Cell, Table
from perso.tuning.objective import LOWER_IS_BETTER
from perso.tuning.report.metric_words import duration, meaning
from perso.tuning.report.scoreboard import Scoreboard
from perso.tuning.verdict import Baseline

T = TypeVar("T")

_COMPARED: Final = (
    "hit_rate",
    "recall",
    "ndcg",
    "coverage",
    "intra_list_diversity",
    "novelty",
    "serendipity",
)


@dataclass(frozen=True, kw_only=True)
class Banner:
    """Whether the winner serves, to be seen from afar."""

    word: str
    """In bold."""
    text: str
    """The rest."""
    is_good: bool
    """Green rather than amber."""

    def html(self) -> str:
        """As HTML."""
        css = "live" if self.is_good else "held"
        word, text = escape(self.word), escape(self.text)
        return f'<div class="banner {css}"><b>{word}</b><span>{text}</span></div>\n'

    def markdown(self) -> str:
        """As Markdown."""
        return f"> **{escape_markdown(self.word)}** {escape_markdown(self.text)}\n"


def headline(board: Scoreboard) -> str:
    """What was tried, how long it took, and what won."""
    result = board.result
    families = board.families
    tried = counted(len(board.candidates), "combination of settings", "combinations of settings")
    whose = f"of {families[0]}" if len(families) == 1 else f"of {len(families)} model families"
    seeds = len(board.spec.seeds)
    times = "" if seeds == 1 else f", each with {seeds} seeds,"
    runner_up = next((f for f in _families_in_order(board) if f != board.winner.family), None)
    ahead = "" if runner_up is None else f", ahead of {runner_up}"
    return (
        f"{tried} {whose}{times} {'was' if len(board.candidates) == 1 else 'were'} tried in "
        f"{duration(result.seconds)}. The best is {_model_words(board)}{ahead}."
    )


def first_screen(board: Scoreboard) -> list[Part]:
    """The answer in plain words, and the figures behind it in large type."""
    result = board.result
    verdict = result.verdict
    if verdict.promoted:
        banner = Banner(
            word="Live.",
            text=f"Version {result.version} is the champion: shoppers get its recommendations.",
            is_good=True,
        )
    else:
        banner = Banner(word="Not live.", text=_not_live(board), is_good=False)
    parts: list[Part] = [banner, Tiles(figures=_tiles(board))]
    period = result.periods.get("test", "")
    parts.append(
        Text(
            text=f"Measured once, on {counted(result.tested.num_users, 'shopper')} of the test "
            f"period{f', {period}' if period else ''}, which no trial had seen.",
            css="note",
        )
    )
    return parts


def verdict_section(board: Scoreboard) -> Section:
    """The gate's checks, and the winner beside champion and bestsellers on the test period."""
    result = board.result
    parts: list[Part] = [Text(text=_as_sentence(result.verdict.reason))]
    checks = result.verdict.checks
    if checks:
        parts.append(
            Table(
                head=["Check", "Result", "Why"],
                rows=[
                    [
                        Cell(text=_as_sentence(check.name, end="")),
                        Cell(
                            text="✓ passed" if check.passed else "✗ failed",
                            css="good" if check.passed else "bad",
                        ),
                        Cell(text=_as_sentence(check.reason)),
                    ]
                    for check in checks
                ],
                caption="A model becomes the champion only if every check is passed.",
                css="told",
            )
        )
    else:
        parts.append(Text(text="The gate has made no checks.", css="note"))
    parts.append(Heading(text="On the test period"))
    parts.append(_comparison(board))
    return Section(
        anchor="verdict", name="Verdict", title="Verdict: does it serve, and why", parts=parts
    )


def bestsellers(baseline: Baseline) -> str:
    """What the better kind of popularity is to a reader."""
    return "the shop's bestsellers" if baseline.kind == "global" else "each segment's bestsellers"


def change_cell(ours: float | None, theirs: float | None, metric: str, css: str = "") -> Cell:
    """The relative change of a metric, coloured by whether that is better."""
    change = relative_change(ours, theirs)
    if change is None:
        return Cell(text="–", is_number=True, css=css)
    lower = metric.split("@", maxsplit=1)[0] in LOWER_IS_BETTER
    better = -change if lower else change
    mark = "better" if better >= 0.0005 else "worse" if better <= -0.0005 else ""
    return Cell(text=f"{change:+.1%}", is_number=True, css=" ".join(filter(None, (mark, css))))


def relative_change(ours: float | None, theirs: float | None) -> float | None:
    """How much more ours is, as a share of theirs; None where that cannot be said."""
    if ours is None or theirs is None or not (math.isfinite(ours) and math.isfinite(theirs)):
        return None
    return None if theirs <= 0 else ours / theirs - 1


def metric_text(value: float | None) -> str:
    """Four digits, a dash for what was not measured."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _families_in_order(board: Scoreboard) -> list[str]:
    return list(dict.fromkeys(candidate.family for candidate in board.measured()))


def _model_words(board: Scoreboard) -> str:
    return f"{board.winner.family} ({board.winner.name})"


def _as_sentence(text: str, end: str = ".") -> str:
    """A text with a capital at its start, unless that is a name, and one full stop at its end."""
    first, space, rest = text.strip().rstrip(".").partition(" ")
    # "ndcg@20 0.12" begins with a name, as does "als".
    is_word = first.replace(",", "").isalpha() and first not in FAMILIES
    return (first[:1].upper() + first[1:] if is_word else first) + space + rest + end


def _not_live(board: Scoreboard) -> str:
    """What shoppers keep, and the first check that failed."""
    champion = board.result.champion
    stays = (
        "Shoppers keep what they have today, as there is no champion yet."
        if champion is None
        else f"Shoppers keep the champion, version {champion.version}."
    )
    failed = [check for check in board.result.verdict.checks if not check.passed]
    if not failed:
        return f"{stays} {_as_sentence(board.result.verdict.reason)}"
    others = len(failed) - 1
    more = f" ({counted(others, 'further check')} failed too)" if others else ""
    why = f"The check “{failed[0].name}” failed: {_as_sentence(failed[0].reason, end='')}"
    return f"{stays} {why}{more}."


def _tiles(board: Scoreboard) -> list[tuple[str, str]]:
    result, metric = board.result, board.spec.gate_metric
    ours = result.tested.overall.get(metric)
    figures = []
    if result.champion is not None:
        theirs = result.champion.report.overall.get(metric)
        figures.append(
            (
                _gain_words(relative_change(ours, theirs)),
                f"list quality ({metric}) against today's champion, version "
                f"{result.champion.version}",
            )
        )
    gain = relative_change(ours, result.test_baseline.report.overall.get(metric))
    popular = bestsellers(result.test_baseline)
    figures.append((_gain_words(gain), f"list quality ({metric}) against {popular}"))
    figures.append(_hits_tile(board) or (metric_text(ours), f"{metric} on the test period"))
    failed = sum(trial.status == "failed" for trial in result.trials)
    stopped = sum(trial.status == "stopped" for trial in result.trials)
    figures.append(
        (
            counted(len(result.trials), "trial"),
            f"{stopped} stopped early, {failed} failed, in {duration(result.seconds)}",
        )
    )
    return figures


def _gain_words(change: float | None) -> str:
    return "–" if change is None else f"{change:+.1%}"


def _hits_tile(board: Scoreboard) -> tuple[str, str] | None:
    """The gain in shoppers, where the share of shoppers with a hit was measured."""
    result, k = board.result, board.longest_list
    reports = {"bestsellers": result.test_baseline.report, "winner": result.tested}
    if result.champion is not None:
        reports = {"champion": result.champion.report, **reports}
    shares = {who: report.overall.get(f"hit_rate@{k}") for who, report in reports.items()}
    known = {
        who: value for who, value in shares.items() if value is not None and math.isfinite(value)
    }
    if "winner" not in known:
        return None
    ours = known.pop("winner")
    others = ", ".join(f"{who} {value:.1%}" for who, value in known.items())
    than = f" ({others})" if others else ""
    return f"{ours:.1%}", f"of shoppers find something they choose among {k} items{than}"


def _comparison(board: Scoreboard) -> Table:
    result, k = board.result, board.longest_list
    champion = None if result.champion is None else result.champion.report
    terms = [term.metric for term in board.spec.goal.terms]
    wanted = [board.spec.gate_metric, *terms, *(f"{base}@{k}" for base in _COMPARED)]
    metrics = [name for name in dict.fromkeys(wanted) if name in result.tested.overall]
    head = ["Metric", "Bestsellers#", "Champion#", "Winner#", "vs champion#", "vs bestsellers#"]
    rows = []
    for metric in metrics:
        ours = result.tested.overall[metric]
        popular = result.test_baseline.report.overall.get(metric)
        theirs = None if champion is None else champion.overall.get(metric)
        row = [
            Cell(text=metric, small=meaning(metric)),
            Cell(text=metric_text(popular), is_number=True),
            Cell(text=metric_text(theirs), is_number=True),
            Cell(text=metric_text(ours), is_number=True, css="strong"),
            change_cell(ours, theirs, metric),
            change_cell(ours, popular, metric),
        ]
        rows.append(_without_champion(row) if champion is None else row)
    if champion is None:
        head = _without_champion(head)
    who = (
        "There was no champion to compare with."
        if result.champion is None
        else f"Champion: version {result.champion.version}, which served before this search and "
        f"has learned from the time until {_day(result.champion.trained_until)}."
    )
    return Table(
        head=head,
        rows=rows,
        caption=f"Over {counted(result.tested.num_users, 'shopper')} of the test period "
        f"({result.periods.get('test', 'period not kept')}). Winner: trained again on everything "
        f"before it. Bestsellers: {bestsellers(result.test_baseline)}, the better kind. {who}",
        marked=frozenset([0]),
    )


def _day(instant: datetime) -> str:
    return f"{instant.day} {instant:%B %Y}"


def _without_champion(row: Sequence[T]) -> list[T]:
    return [value for place, value in enumerate(row) if place not in {2, 4}]
