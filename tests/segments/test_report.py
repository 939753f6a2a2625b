"""The page: whole, self-contained, escaped, silent about few, and true to the figures."""

import base64
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perso.segments.group_figures import Distribution
from perso.segments.report.pictures import draw_distributions, draw_scatter
from perso.segments.report.render import render_report
from perso.segments.summary import MonitorSpec, WeekSummary, summarize_week

FIRST = datetime(2026, 3, 2, tzinfo=UTC)
NUM_USERS = 4000
SEGMENTS = ("champions", "loyal", "at_risk", "browsers")
NASTY = '<b>$Tea & "coffee"$</b>'
MODEL_INFO: dict[str, Any] = {
    "algorithm": "gaussian_mixture",
    "num_clusters": 3,
    "silhouette": 0.4125,
    "note": "<i>fitted</i>",
    "clusters": {"c0": ["spend high", "mobile share low"], "c1": "one order <i>"},
    "candidates": [
        {"algorithm": "kmeans", "num_clusters": 4, "silhouette": 0.3, "bic": None},
        {
            "algorithm": "gaussian_mixture",
            "num_clusters": 3,
            "silhouette": 0.4125,
            "bic": 123456.0,
            "chosen": True,
        },
    ],
}


@dataclass(frozen=True)
class _Changed:
    """What a refit made of a cluster."""

    key: str
    kept_label: str
    label_now: str
    distance: float


class _Page(HTMLParser):
    """Tables as rows of cell texts by caption, and every image."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.images: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._rows: list[list[str]] = []
        self._caption = ""
        self._in: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "img":
            self.images.append(named)
        if named.get("id"):
            self.ids.append(str(named["id"]))
        if named.get("href"):
            self.links.append(str(named["href"]))
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")
        if tag in {"td", "th", "caption", "small", "style"}:
            self._in = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.tables[self._caption] = self._rows
        if tag in {"td", "th", "caption", "small", "style"}:
            self._in = None

    def handle_data(self, data: str) -> None:
        if self._in == "caption":
            self._caption += data
        elif self._in in {"td", "th"}:
            self._rows[-1][-1] += data
        if self._in != "style":
            self.text += data

    def table(self, words: str) -> dict[str, list[str]]:
        """Rows by their name, of the one table whose caption holds some words."""
        (rows,) = [rows for caption, rows in self.tables.items() if words in caption]
        return {row[0]: row[1:] for row in rows}

    def pictures(self) -> list[str]:
        return [
            base64.b64decode(str(image["src"]).removeprefix("data:image/svg+xml;base64,")).decode()
            for image in self.images
        ]


def _rows(week: int, labels: dict[str, str], segments: tuple[str, ...] = SEGMENTS) -> pa.Table:
    rng = np.random.default_rng(5)
    segment = rng.choice(segments, NUM_USERS)
    cluster = rng.choice(list(labels), NUM_USERS)
    for then in range(week):  # every week some customers move
        moves = np.random.default_rng(then).random(NUM_USERS) < 0.15
        segment = np.where(moves, np.random.default_rng(then).choice(segments, NUM_USERS), segment)
    is_buyer = segment != "browsers"
    return pa.table(
        {
            "user_id": [f"secret-{i}" for i in range(NUM_USERS)],
            "segment": segment,
            "cluster": cluster,
            "cluster_label": [labels[key] for key in cluster],
            "spend": rng.lognormal(4, 1, NUM_USERS) * is_buyer,
            "num_orders": rng.poisson(3, NUM_USERS) * is_buyer,
            "recency_days": pa.array(rng.uniform(0, 90, NUM_USERS), mask=~is_buyer),
            "composite_score": rng.random(NUM_USERS),
            "monetary": rng.lognormal(5, 1, NUM_USERS) * is_buyer,
            "recency_score": rng.integers(1, 101, NUM_USERS) * is_buyer,
            "frequency_quartile": rng.integers(1, 5, NUM_USERS) * is_buyer,
        }
    )


LABELS = {"c0": NASTY, "c1": "Evening buyers", "c2": "Morning buyers"}


def _history(
    num_weeks: int = 4,
    *,
    change: Callable[[int, pa.Table], pa.Table] = lambda _, rows: rows,
    minimum: int = 10,
) -> list[WeekSummary]:
    weeks: list[WeekSummary] = []
    before = None
    for week in range(num_weeks):
        rows = change(week, _rows(week, LABELS))
        weeks.append(
            summarize_week(
                rows,
                before,
                as_of=FIRST + timedelta(weeks=week),
                spec=MonitorSpec(min_kept=0.95),
                min_segment_size=minimum,
            )
        )
        before = rows
    return weeks


def _points() -> pa.Table:
    rng = np.random.default_rng(0)
    labels = [*LABELS.values(), "noise", None]
    return pa.table(
        {
            "x": rng.normal(size=200),
            "y": rng.normal(size=200),
            "cluster_label": pa.array([labels[i % 5] for i in range(200)]),
        }
    )


@pytest.fixture(scope="module")
def weeks() -> list[WeekSummary]:
    return _history()


@pytest.fixture(scope="module")
def page(weeks: list[WeekSummary]) -> str:
    return _render(weeks)


def _render(weeks: list[WeekSummary]) -> str:
    return render_report(
        weeks,
        points=_points(),
        model_info=MODEL_INFO,
        title=f"Shop {NASTY}",
        currency="GBP",
        window_weeks=26,
    )


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    assert "http" not in page
    assert not re.search(r"<(script|link|iframe|object|base)\b|@import|url\(", page)
    parsed = _Page(page)
    assert all(link.startswith("#") for link in parsed.links)
    assert all(str(image["src"]).startswith("data:image/svg+xml;") for image in parsed.images)
    for svg in parsed.pictures():
        for address in re.findall(r'(?:href|src)="([^"]+)"', svg):
            assert address.startswith(("#", "data:image/png;base64,"))


def test_the_page_has_every_section_and_every_link_leads_to_one(page: str) -> None:
    parsed = _Page(page)
    wanted = {"segments", "rfm", "migration", "history", "clusters", "stability", "distributions"}
    assert wanted | {"alerts"} == set(parsed.ids)
    assert {f"#{name}" for name in wanted} == set(parsed.links)
    assert len(parsed.images) == 5
    assert all(len(str(image["alt"])) > 30 for image in parsed.images)


def test_labels_are_escaped_everywhere(page: str) -> None:
    assert "<b>$Tea" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;$Tea &amp; &quot;coffee&quot;$&lt;/b&gt;" in page
    scatter = next(svg for svg in _Page(page).pictures() if "principal component" in svg)
    texts = "".join(ET.fromstring(scatter).itertext())
    assert NASTY in texts  # one well-formed document, the dollars no formula


def test_labels_in_alerts_are_escaped() -> None:
    change = _Changed(key="c0", kept_label=NASTY, label_now="Night owls", distance=1.0)
    week = summarize_week(
        _rows(0, LABELS),
        None,
        as_of=FIRST,
        spec=MonitorSpec(),
        min_segment_size=10,
        cluster_changes=[change],
    )
    page = render_report([week])
    assert "<b>$Tea" not in page
    assert "Night owls" in page


def test_the_same_figures_give_the_same_bytes_in_any_order(
    weeks: list[WeekSummary], page: str
) -> None:
    stored = [WeekSummary.from_dict(json.loads(json.dumps(w.to_dict()))) for w in reversed(weeks)]
    assert _render(stored) == page


def test_numbers_of_the_page_are_those_of_the_summary(weeks: list[WeekSummary], page: str) -> None:
    week = weeks[-1]
    names = {
        "champions": "Champions",
        "loyal": "Loyal",
        "at_risk": "At risk",
        "browsers": "Browsers",
    }
    parsed = _Page(page)
    table = parsed.table("mean composite score")
    total = sum(group.spend for group in week.segments)
    assert len(week.segments) == 4
    for group in week.segments:
        recency = group.mean_recency_days
        assert table[names[group.key]] == [
            f"{group.num_users:,}",
            f"{group.share:.1%}",
            f"{group.spend:,.0f}",
            f"{group.spend / total:.1%}",
            f"{group.mean_spend:,.2f}",
            f"{group.mean_orders:,.1f}",
            "–" if recency is None else f"{recency:,.0f}",
            f"{group.mean_composite_score:.2f}",
        ]
    rfm = parsed.table("Number of customers")["81–100 · just now"]
    assert rfm == [str(cell.num_users) for cell in week.rfm if cell.recency_from == 81]
    migration = week.segment_migration
    assert migration is not None
    moved = next(rows for caption, rows in parsed.tables.items() if "of one segment" in caption)
    by_name = {name: key for key, name in names.items()}
    for row in moved[1:]:
        for title, text in zip(moved[0][1:], row[1:], strict=True):
            line = migration.labels.index(by_name[row[0]])
            column = migration.labels.index(by_name[title])
            assert text == f"{migration.counts[line][column]:,}"
    told = migration.moves()[0]
    assert (
        f"{told.num_users} customers moved from {names[told.before]} to {names[told.after]}."
        in parsed.text
    )
    steady = parsed.table("The newest 4 weeks.")
    assert steady["23 Mar 2026"][:2] == [
        f"{week.segment_psi:.3f}",
        f"{migration.share_kept:.1%}",
    ]


def test_the_headline_says_it_in_words(weeks: list[WeekSummary], page: str) -> None:
    week = weeks[-1]
    biggest = max(week.segments, key=lambda group: group.num_users)
    text = _Page(page).text
    assert "On 23 March 2026 4,000 customers were in 4 segments." in text
    assert f"with {biggest.num_users:,} customers ({biggest.share:.0%})." in text
    assert "The biggest move since the week before: " in text
    assert "There is 1 alert." in text
    assert week.alerts[0].sentence in text
    assert "of the spend in the last 26 weeks." in text


def test_clusters_are_told_with_what_sets_them_apart_and_what_was_tried(page: str) -> None:
    parsed = _Page(page)
    assert "spend high, mobile share low" in parsed.text
    assert "Algorithm: Gaussian mixture · Number of clusters: 3 · Silhouette: 0.412" in parsed.text
    tried = parsed.table("Every clustering")
    assert tried["K-means"] == ["4", "0.300", "–", ""]
    assert tried["Gaussian mixture"] == ["3", "0.412", "123,456", "chosen"]


def _one_small_segment(week: int, rows: pa.Table) -> pa.Table:
    segment = np.array(["champions"] * 3800 + ["loyal"] * 190 + ["promising"] * 10, dtype=object)
    if week:
        segment[:7] = "at_risk"
    return rows.set_column(1, "segment", pa.array(segment))


def test_nothing_is_told_about_few_customers() -> None:
    weeks = _history(2, change=_one_small_segment)
    assert {g.key: g.num_users for g in weeks[-1].segments} == {
        "champions": 3793,
        "loyal": 190,
        "promising": 10,
        "at_risk": 7,
    }
    parsed = _Page(_render(weeks))
    table = parsed.table("mean composite score")
    assert table["At risk"] == ["hidden", *[""] * 7]
    # The 10 go too: 4,000 less the others would be the 7.
    assert table["Promising"] == ["hidden", *[""] * 7]
    assert table["Champions"][0] == "3,793"
    history = parsed.table("Customers per segment")
    assert history["9 Mar 2026"] == ["3,793", "190", "hidden", "hidden", "4,000"]
    assert history["2 Mar 2026"] == ["3,800", "190", "10", "0", "4,000"]
    assert parsed.table("of one segment")["Champions"][-1] == "<10"
    assert "7" not in {text for rows in parsed.tables.values() for row in rows for text in row}
    assert "7 customers" not in parsed.text
    bars = next(svg for svg in parsed.pictures() if "Share of all spend" in svg)
    assert bars.count("hidden</text>") == 4


def test_small_cells_of_the_rfm_map_are_hidden() -> None:
    def change(_: int, rows: pa.Table) -> pa.Table:
        recency = np.array([95] * 3900 + [50] * 93 + [10] * 7)
        quartile = np.array([4] * 2000 + [3] * 2000)
        place = rows.column_names.index
        rows = rows.set_column(place("recency_score"), "recency_score", pa.array(recency))
        return rows.set_column(
            place("frequency_quartile"), "frequency_quartile", pa.array(quartile)
        )

    parsed = _Page(_render(_history(1, change=change)))
    sizes = parsed.table("Number of customers")
    assert sizes["81–100 · just now"] == ["", "", "1,900", "2,000"]
    assert sizes["1–20 · longest ago"] == ["", "", "<10", ""]
    assert sizes["41–60"] == ["", "", "···", ""]
    worth = parsed.table("Mean spend ever")
    assert worth["1–20 · longest ago"] == worth["41–60"] == ["", "", "", ""]
    assert worth["81–100 · just now"][3] != ""


def test_a_feature_that_few_have_a_value_of_is_left_out() -> None:
    def change(known: int) -> Callable[[int, pa.Table], pa.Table]:
        values = [0.5] * (known - 1) + [0.75] + [None] * (NUM_USERS - known)
        return lambda _, rows: rows.append_column("return_rate", pa.array(values, pa.float32()))

    few, enough = (_Page(_render(_history(1, change=change(known)))) for known in (9, 10))
    assert "Return rate" not in few.table("Unknown")
    assert enough.table("Unknown")["Return rate"][1:] == ["0.50", "0.0%", "99.8%"]


def test_a_feature_that_is_the_same_for_all_is_left_out() -> None:
    def change(_: int, rows: pa.Table) -> pa.Table:
        return rows.append_column("discount_share", pa.array([0.0] * NUM_USERS, pa.float32()))

    assert "Discount share" not in _Page(_render(_history(1, change=change))).text


def test_numbers_of_clusters_in_one_place_do_not_cover_each_other() -> None:
    rng = np.random.default_rng(0)
    keys = [f"c{place}" for place in range(6)]
    svg = draw_scatter(
        rng.normal(size=600),
        rng.normal(size=600),
        np.array(keys * 100, dtype=object),
        dict.fromkeys(keys, "#0072b2"),
        {key: f"Group of {key}" for key in keys},
    )
    found = re.findall(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>([1-6])</text>', svg)
    places = np.array([(float(x), float(y)) for x, y, _ in found])
    assert len(places) == 6
    apart = np.hypot(*(places[:, np.newaxis] - places).transpose(2, 0, 1))
    assert apart[~np.eye(6, dtype=bool)].min() > 18  # points, the width of a circle


def test_bars_of_few_customers_are_not_drawn() -> None:
    spread = Distribution(
        name="spend", low=0, high=2, counts=(3, 50), median=1, num_zeros=0, num_unknown=0
    )
    drawn = [draw_distributions([(spread, "Spend", "GBP")], minimum) for minimum in (1, 3, 4)]
    assert drawn[0] == drawn[1]
    assert drawn[1] != drawn[2]


def test_no_customer_id_is_on_the_page(page: str) -> None:
    assert "secret" not in page
    assert not any("secret" in svg for svg in _Page(page).pictures())


def test_a_first_week_without_clusters_or_points_is_a_whole_page() -> None:
    rows = _rows(0, LABELS)
    nobody = pa.nulls(NUM_USERS, pa.string())
    rows = rows.set_column(2, "cluster", nobody).set_column(3, "cluster_label", nobody)
    week = summarize_week(rows, None, as_of=FIRST, spec=MonitorSpec(), min_segment_size=10)
    text = _Page(render_report([week])).text
    assert "No clusters were fitted." in text
    assert "nothing to compare it with yet" in text
    assert "There is only one week yet." in text


def test_a_shop_without_customers_has_a_page() -> None:
    empty = _rows(0, LABELS).slice(0, 0)
    week = summarize_week(empty, None, as_of=FIRST, spec=MonitorSpec(), min_segment_size=10)
    assert "There are no customers yet." in render_report([week])


def test_weeks_that_cannot_be_reported_are_named(weeks: list[WeekSummary]) -> None:
    with pytest.raises(ValueError, match="weeks is empty"):
        render_report([])
    with pytest.raises(ValueError, match="same as_of"):
        render_report([weeks[0], weeks[0]])


def test_segments_of_the_shop_have_names_and_colours() -> None:
    def rename(_: int, rows: pa.Table) -> pa.Table:
        names = pa.array(["gift_buyers", "champions"] * (NUM_USERS // 2))
        return rows.set_column(1, "segment", names)

    parsed = _Page(_render(_history(2, change=rename)))
    assert list(parsed.table("mean composite score"))[1:] == ["Champions", "Gift buyers"]
    bars = next(svg for svg in parsed.pictures() if "Share of all spend" in svg)
    assert "#1b7837" in bars
