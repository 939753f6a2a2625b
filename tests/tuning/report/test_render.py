"""The report: whole, self-contained, escaped, and true to the figures, with or without them."""

import base64
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from perso.evaluation.report import EvaluationReport
from perso.spec import parse_spec
from perso.tuning.report.leaderboard_section import leaderboard_section
from perso.tuning.report.render import write_report
from perso.tuning.report.scoreboard import Scoreboard
from perso.tuning.report.segment_section import segment_section
from perso.tuning.report.verdict_section import first_screen, verdict_section
from perso.tuning.result import SearchResult
from perso.tuning.spec import SearchSpec
from perso.tuning.standings import standings

Search = Callable[..., SearchResult]
NASTY = '<b>$|`x`</b> & "q"'
SECTIONS = [
    "verdict",
    "segments",
    "leaderboard",
    "trade-offs",
    "settings",
    "each",
    "curves",
    "cost",
    "lineage",
]
QUICK: dict[str, Any] = {"families": ("spectral",), "num_trials": 6}  # without epochs, so quick


class _Page(HTMLParser):
    """Tables as rows of cell texts by section, and every image."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.images: dict[str, list[str]] = {}
        self.texts: dict[str, str] = {"": ""}
        self.links: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self._section = ""
        self._in: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.attributes += named.items()
        if tag == "section":
            self._section = named["id"]
            self.texts[self._section] = ""
        elif tag == "a":
            self.links.append(named["href"])
        elif tag == "img":
            data = named["src"].removeprefix("data:image/svg+xml;base64,")
            svg = base64.b64decode(data, validate=True).decode()
            self.images.setdefault(self._section, []).append(svg)
            return
        elif tag == "table":
            self.tables.setdefault(self._section, []).append([])
        elif tag == "tr":
            self.tables[self._section][-1].append([])
        elif tag in {"td", "th"}:
            self.tables[self._section][-1][-1].append("")
        if tag not in {"meta", "br"}:
            self._in.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._in.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if "style" in self._in:
            return
        self.texts[self._section] += data
        if self._in and self._in[-1] in {"td", "th", "span"} and {"td", "th"} & {*self._in}:
            self.tables[self._section][-1][-1][-1] += data

    @property
    def open_tags(self) -> list[str]:
        return self._in

    def rows(self, section: str, table: int = 0) -> dict[str, list[str]]:
        """Rows of a table by their first cell."""
        return {row[0]: row[1:] for row in self.tables[section][table]}


def _write(result: SearchResult, folder: Path) -> tuple[_Page, str, str]:
    report = write_report(result, folder)
    html = report.html.read_text(encoding="utf-8")
    return _Page(html), html, report.markdown.read_text(encoding="utf-8")


def _cells(markdown: str) -> list[list[str]]:
    """Cells of every line of every table."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def result(search: Search) -> SearchResult:
    return search(24, families=("hybrid", "item_knn"))


@pytest.fixture(scope="module")
def written(result: SearchResult, tmp_path_factory) -> tuple[_Page, str, str]:
    return _write(result, tmp_path_factory.mktemp("report"))


def _check_form(page: _Page, html: str, markdown: str) -> None:
    """What holds for every report, however little was measured."""
    assert page.open_tags == []
    assert list(page.texts) == ["", *SECTIONS]
    assert page.links == [f"#{anchor}" for anchor in SECTIONS]
    assert all(text.strip() for text in page.texts.values())
    assert "://" not in html
    assert not re.search(r"<(script|link|iframe|object|base)\b|@import|url\(", html)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    for svg in (svg for images in page.images.values() for svg in images):
        ET.fromstring(svg)
        for address in re.findall(r'(?:href|src)="([^"]+)"', svg):
            assert address.startswith(("#", "data:image/png;base64,"))
        text = "".join(ET.fromstring(svg).itertext())
        assert "mathdefault" not in text
        assert "nan" not in text
    assert "nan" not in re.findall(r"[\w.]+", "".join(page.texts.values()))
    _check_markdown(markdown)


def _check_markdown(markdown: str) -> None:
    """Tables have as many cells in each line as in their head, and a ruler below it."""
    outside = re.sub(r"^(`{3,}).*?^\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"(?:^\|.*\n)+", outside, flags=re.MULTILINE)
    assert blocks
    for block in blocks:
        lines = block.splitlines()
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(widths) == 1, block
        assert re.fullmatch(r"\|( (:---|---:) \|)+", lines[1])
    assert "](" not in outside
    assert "data:" not in outside


def test_the_report_is_whole_and_needs_nothing_but_itself(written: tuple[_Page, str, str]) -> None:
    _check_form(*written)
    page, html, markdown = written
    assert set(page.images) == {"segments", "trade-offs", "settings", "each", "curves", "cost"}
    assert len(html) < 1_500_000
    assert len(markdown) < 60_000  # a pull request takes 65,536 characters


def test_the_first_screen_says_who_won_whether_it_serves_and_what_is_gained(
    result: SearchResult, written: tuple[_Page, str, str]
) -> None:
    page, _, markdown = written
    first, winner = page.texts[""], result.winner
    champion = result.champion
    assert champion is not None
    ours = result.tested.overall["ndcg@20"]
    gain = ours / champion.report.overall["ndcg@20"] - 1
    over_popular = ours / result.test_baseline.report.overall["ndcg@20"] - 1
    for text in (first, markdown):
        assert f"The best is {winner.settings['family']} (trial {winner.number})" in text
        assert "24 combinations of settings of 2 model families were tried in 6 min 52 s." in text
        assert "Live." in text
        assert "Version 12 is the champion: shoppers get its recommendations." in text
        assert f"{gain:+.1%}" in text
        assert f"{over_popular:+.1%}" in text
        assert f"{result.tested.overall['hit_rate@20']:.1%}" in text


def test_a_model_that_is_held_back_says_why_in_the_first_screen(
    search: Search,
) -> None:
    board = Scoreboard(result=search(promoted=False, **QUICK))
    text = first_screen(board)[0].markdown()
    assert text.startswith(
        "> **Not live.** Shoppers keep the champion, version 11. The check “beats version 11” "
        "failed: ndcg@20 0.1268 against version 11's 0.1187"
    )
    assert "is not clearly above the asked +0.0012" in text
    checks = _cells(verdict_section(board).markdown())
    assert ["Beats version 11", "✗ failed"] in [row[:2] for row in checks]


def test_a_model_that_is_held_back_without_champion_leaves_shoppers_what_they_have(
    search: Search,
) -> None:
    board = Scoreboard(result=search(promoted=False, has_champion=False, **QUICK))
    assert "there is no champion yet" in first_screen(board)[0].html()


def test_every_check_of_the_gate_is_told_with_its_reason(
    result: SearchResult, written: tuple[_Page, str, str]
) -> None:
    rows = written[0].rows("verdict")
    checks = result.verdict.checks
    assert len(rows) == 1 + len(checks)
    for check in checks:
        outcome, why = rows[check.name[:1].upper() + check.name[1:]]
        assert outcome == "✓ passed"
        assert why.lower() == f"{check.reason.lower()}."


def test_the_leaderboard_has_the_trials_in_order_and_popularity_among_them(
    result: SearchResult, written: tuple[_Page, str, str]
) -> None:
    ranked = [s for s in standings(result.trials, result.spec) if s.is_finished]
    rows = written[0].tables["leaderboard"][0][1:]
    baseline = result.validation_baseline.report.overall["ndcg@20"]
    (place,) = [place for place, row in enumerate(rows) if row[1] == "the shop's bestsellers"]
    assert rows[place][3] == f"{baseline:.4f}"
    assert all(float(row[3]) > baseline for row in rows[:place])
    assert all(float(row[3]) <= baseline for row in rows[place + 1 :])
    told = [row for row in rows if row[0] != "–"]
    assert len(told) == min(len(ranked), 20)
    for row, standing in zip(told, ranked, strict=False):
        assert row[1] == standing.first.settings["family"]
        assert row[2] == str(standing.first.number)
        assert row[3] == f"{standing.value:.4f}"
    assert told[0][2] == str(result.winner.number)


def test_popularity_leads_the_leaderboard_if_nothing_beats_it(search: Search) -> None:
    result = search(**QUICK)
    strong = replace(
        result.validation_baseline.report,
        overall=dict.fromkeys(result.validation_baseline.report.overall, 0.5),
    )
    baseline = replace(result.validation_baseline, report=strong)
    board = Scoreboard(result=replace(result, validation_baseline=baseline))
    rows = _cells(leaderboard_section(board).markdown())
    assert rows[2][1].startswith("the shop's bestsellers")
    assert rows[3][0] == "**1**"  # the winner is marked, not the row above it


def test_stopped_and_failed_trials_are_told_with_their_reasons(
    result: SearchResult, written: tuple[_Page, str, str]
) -> None:
    page, _, markdown = written
    failed = [trial for trial in result.trials if trial.status == "failed"]
    stopped = [trial for trial in result.trials if trial.status == "stopped"]
    assert failed
    assert stopped
    text = page.texts["leaderboard"]
    for trial in failed:
        assert str(trial.error) in text
        assert str(trial.error) in markdown
    assert f"{len(stopped)} combinations not trained to the end" in text
    assert "successive halving" in text
    reasons = page.tables["leaderboard"][2][1:]
    assert sum(len(row[1].split(", ")) for row in reasons) == len(failed)


def test_segments_are_compared_and_small_ones_are_uncertain(
    result: SearchResult, written: tuple[_Page, str, str]
) -> None:
    page = written[0]
    rows = page.rows("segments")
    assert result.champion is not None
    others = (result.test_baseline.report, result.champion.report)
    for name, metrics in result.tested.per_segment.items():
        users, popular, champion, winner, gain, over_popular = rows[name]
        ours = metrics["ndcg@20"]
        theirs = [report.per_segment[name]["ndcg@20"] for report in others]
        assert users == f"{result.tested.num_users_by_segment[name]:,}"
        assert [popular, champion, winner] == [f"{v:.4f}" for v in (*theirs, ours)]
        assert [over_popular, gain] == [f"{ours / value - 1:+.1%}" for value in theirs]
    assert page.texts["segments"].count("few shoppers: uncertain") == 1  # of 41 shoppers


def test_cost_adds_up(result: SearchResult, written: tuple[_Page, str, str]) -> None:
    rows = written[0].rows("cost")
    everything = rows["All"]
    statuses = [trial.status for trial in result.trials]
    assert everything[:4] == [
        "24",
        *(str(statuses.count(status)) for status in ("finished", "stopped", "failed")),
    ]
    for column in range(5):
        of_families = [
            int(row[column]) for name, row in rows.items() if name not in {"All", "Family"}
        ]
        assert sum(of_families) == int(everything[column])


def test_the_spec_on_the_page_runs_the_same_search(
    result: SearchResult, written: tuple[_Page, str, str]
) -> None:
    page, _, markdown = written
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", markdown, flags=re.DOTALL | re.MULTILINE)
    assert parse_spec(SearchSpec, yaml.safe_load(block)["search"]) == result.spec
    assert block in page.texts["lineage"]
    for value in (*result.lineage.values(), *result.periods.values()):
        assert value in page.texts["lineage"]


def test_equal_results_give_equal_bytes(search: Search, tmp_path: Path) -> None:
    once, again = (write_report(search(**QUICK), tmp_path / name) for name in ("a", "b"))
    assert once.html.read_bytes() == again.html.read_bytes()
    assert once.markdown.read_bytes() == again.markdown.read_bytes()


def test_names_are_escaped_everywhere(search: Search, tmp_path: Path) -> None:
    result = search(6, families=("item_knn",))

    def renamed(report: EvaluationReport) -> EvaluationReport:
        return replace(
            report,
            per_segment={NASTY: report.per_segment["loyal"]},
            num_users_by_segment={NASTY: 500},
        )

    champion = result.champion
    assert champion is not None
    trials = tuple(
        replace(t, settings={**t.settings, "similarity": NASTY}, node=NASTY)
        if t.number
        else replace(t, status="failed", error=NASTY, metrics={})
        for t in result.trials
    )
    result = replace(
        result,
        trials=trials,
        winner=trials[result.winner.number],
        tested=renamed(result.tested),
        test_baseline=replace(result.test_baseline, report=renamed(result.test_baseline.report)),
        champion=replace(champion, version=NASTY, report=renamed(champion.report)),
        verdict=replace(result.verdict, reason=NASTY),
        version=NASTY,
        lineage={"data_key": NASTY, NASTY: NASTY},
    )
    page, html, markdown = _write(result, tmp_path)
    _check_form(page, html, markdown)
    assert "<b>$" not in html
    outside = re.sub(r"^```.*?^```$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    assert "<b>$" not in outside
    for section in ("verdict", "segments", "leaderboard", "cost", "lineage"):
        assert NASTY in page.texts[section]
    assert NASTY in "".join(ET.fromstring(page.images["segments"][0]).itertext())


def test_one_trial_without_champion_says_what_there_is_not(search: Search, tmp_path: Path) -> None:
    result = search(1, families=("item_knn",), has_champion=False)
    page, html, markdown = _write(result, tmp_path)
    _check_form(page, html, markdown)
    assert set(page.images) == {"segments"}
    assert "1 combination of settings of item_knn was tried" in page.texts[""]
    assert "There was no champion to compare with." in page.texts["verdict"]
    assert "so there is nothing to compare" in page.texts["each"]
    assert "nothing to draw" in page.texts["curves"]
    assert "of one trial only" in page.texts["trade-offs"]
    assert "No trial failed." in page.texts["leaderboard"]
    assert "Champion" not in page.tables["segments"][0][0]


def test_without_segments_the_section_says_so(search: Search) -> None:
    result = search(**QUICK)
    bare = replace(result.tested, per_segment={}, num_users_by_segment={})
    html = segment_section(Scoreboard(result=replace(result, tested=bare))).html()
    assert "ndcg@20 was not measured per segment" in html
    assert "<img" not in html


def test_all_failed_but_one_is_a_whole_report(search: Search, tmp_path: Path) -> None:
    result = search(**QUICK)
    trials = tuple(
        t
        if t == result.winner
        else replace(
            t, status="failed", metrics={}, per_segment={}, curve=(), error="E: " + "x" * 999
        )
        for t in result.trials
    )
    page, html, markdown = _write(replace(result, trials=trials), tmp_path)
    _check_form(page, html, markdown)
    (reasons,) = page.tables["leaderboard"][1:]
    assert len(reasons) == 2  # one reason, however many trials
    assert len(reasons[1][2]) < 300
    assert reasons[1][2].endswith("…")


def test_metrics_that_are_no_number_are_dashes(search: Search, tmp_path: Path) -> None:
    result = search(**QUICK)
    number = next(t.number for t in result.trials if t != result.winner and t.status == "finished")
    trials = tuple(
        replace(t, metrics=dict.fromkeys(t.metrics, math.nan), curve=((1, math.nan),))
        if t.number == number
        else t
        for t in result.trials
    )
    nothing = dict.fromkeys(result.tested.overall, math.nan)
    champion = result.champion
    assert champion is not None
    page, html, markdown = _write(
        replace(
            result,
            trials=trials,
            tested=replace(result.tested, overall=nothing),
            champion=replace(champion, report=replace(champion.report, overall=nothing)),
        ),
        tmp_path,
    )
    _check_form(page, html, markdown)
    assert page.rows("verdict", 1)["ndcg@20"][1:3] == ["–", "–"]
    assert "ndcg@20 was not measured" in page.texts["leaderboard"]


def test_seeds_of_one_point_are_one_row_with_their_spread(search: Search) -> None:
    result = search(2, families=("item_knn",))
    spec = replace(result.spec, seeds=(0, 1), scheduler="none")
    first = replace(result.trials[0], metrics={"ndcg@20": 0.1}, seed=0)
    second = replace(first, metrics={"ndcg@20": 0.12}, seed=1)
    # Two seeds of one point: equal but for number and seed.
    numbered = (first, replace(second, number=1))
    board = Scoreboard(result=replace(result, spec=spec, trials=numbered, winner=numbered[0]))
    rows = _cells(leaderboard_section(board).markdown())
    told = [row[2:4] for row in rows if row[0] == "**1**"]
    assert told == [["**0, 1**", "**0.1100**<br><sub>spread 0.0200</sub>"]]


def test_what_breaks_a_constraint_cannot_win_and_says_so(search: Search) -> None:
    result = search(**QUICK)
    least = sorted(t.metrics["coverage@20"] for t in result.trials if t.metrics)[1]
    spec_document = {"coverage@20": {"at_least": least}}
    spec = replace(
        result.spec, constraints=parse_spec(SearchSpec, {"constraints": spec_document}).constraints
    )
    winner = standings(result.trials, spec)[0].first
    board = Scoreboard(result=replace(result, spec=spec, winner=winner))
    text = leaderboard_section(board).markdown()
    assert "### Outside the constraints" in text
    assert f"allowed is at least {least:g}" in text


@pytest.mark.slow
def test_five_hundred_trials_are_a_readable_page(search: Search, tmp_path: Path) -> None:
    page, html, markdown = _write(search(500), tmp_path)
    _check_form(page, html, markdown)
    assert len(html) < 3_000_000
    assert len(markdown) < 60_000
    assert all(len(table) <= 25 for tables in page.tables.values() for table in tables)
    assert "Left out: " in page.texts["leaderboard"]
