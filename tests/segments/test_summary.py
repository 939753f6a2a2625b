"""The figures of a week, and when they are an alert."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.errors import InputError
from perso.segments.summary import (
    NEEDED_COLUMNS,
    MonitorSpec,
    WeekSummary,
    summarize_week,
)

AS_OF = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class _Changed:
    key: str
    kept_label: str
    label_now: str
    distance: float


def _rows(num_users: int, *, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    is_buyer = rng.random(num_users) < 0.7
    cluster = rng.integers(0, 3, num_users)
    return pa.table(
        {
            "user_id": [f"u{i}" for i in range(num_users)],
            "segment": np.where(is_buyer, rng.choice(["loyal", "lost"], num_users), "browsers"),
            "cluster": pa.array([f"c{c}" for c in cluster], mask=rng.random(num_users) < 0.1),
            "cluster_label": [f"Cluster number {c}" for c in cluster],
            "spend": rng.lognormal(3, 1, num_users) * is_buyer,
            "num_orders": rng.poisson(3, num_users) * is_buyer,
            "recency_days": pa.array(
                rng.uniform(0, 300, num_users).astype(np.float32), mask=~is_buyer
            ),
            "composite_score": rng.random(num_users).astype(np.float32),
            "monetary": rng.lognormal(4, 1, num_users) * is_buyer,
            "recency_score": rng.integers(1, 101, num_users) * is_buyer,
            "frequency_quartile": rng.integers(1, 5, num_users) * is_buyer,
        }
    )


def _summarize(
    rows: pa.Table, previous: pa.Table | None = None, *, spec: MonitorSpec | None = None
) -> WeekSummary:
    return summarize_week(
        rows, previous, as_of=AS_OF, spec=spec or MonitorSpec(), min_segment_size=10
    )


def _set(rows: pa.Table, name: str, values: object) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, pa.array(values))


def _kinds(week: WeekSummary) -> list[str]:
    return [alert.kind for alert in week.alerts]


def test_figures_of_a_small_world_are_exact() -> None:
    rows = pa.table(
        {
            "user_id": ["ann", "bob", "cid", "dan"],
            "segment": ["champions", "lost", "champions", "browsers"],
            "cluster": pa.array(["c1", "c1", None, "noise"]),
            "cluster_label": pa.array(["Evening buyers", "Evening buyers", None, "noise"]),
            "spend": [30.25, 1.1, 2.2, 0.0],
            "num_orders": [3, 1, 4, 0],
            "recency_days": pa.array([1.0, 200.0, 4.0, None], pa.float32()),
            "composite_score": pa.array([0.5, 0.25, 1.0, 0.0], pa.float32()),
            "monetary": [100.0, 50.0, 300.0, 0.0],
            "recency_score": [100, 1, 81, 0],
            "frequency_quartile": [4, 1, 4, 0],
        }
    )
    week = _summarize(rows)
    assert week.num_users == 4
    assert [group.key for group in week.segments] == ["champions", "lost", "browsers"]
    champions, _, browsers = week.segments
    assert (champions.num_users, champions.share) == (2, 0.5)
    assert champions.spend == pytest.approx(32.45, abs=1e-12)
    assert champions.mean_spend == pytest.approx(16.225, abs=1e-12)
    assert champions.mean_orders == 3.5
    assert champions.mean_recency_days == 2.5
    assert champions.mean_composite_score == 0.75
    assert browsers.mean_recency_days is None
    assert [(g.key, g.label, g.num_users) for g in week.clusters] == [
        ("(none)", "(none)", 1),
        ("c1", "Evening buyers", 2),
        ("noise", "noise", 1),
    ]
    cells = {(c.recency_from, c.frequency_quartile): c for c in week.rfm}
    assert len(cells) == 20
    assert (cells[81, 4].num_users, cells[81, 4].mean_monetary) == (2, 200.0)
    assert (cells[1, 1].num_users, cells[1, 1].mean_monetary) == (1, 50.0)
    assert sum(cell.num_users for cell in week.rfm) == 3
    assert cells[41, 2].mean_monetary is None
    assert week.segment_migration is None
    assert week.segment_psi is None
    assert week.alerts == ()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 200), st.integers(0, 5))
def test_figures_equal_ten_naive_lines(num_users: int, seed: int) -> None:
    rows = _rows(num_users, seed=seed)
    week = _summarize(rows)
    people = rows.to_pylist()
    for group in week.segments:
        inside = [p for p in people if p["segment"] == group.key]
        recency = [p["recency_days"] for p in inside if p["recency_days"] is not None]
        assert group.num_users == len(inside)
        assert group.spend == pytest.approx(sum(p["spend"] for p in inside))
        assert group.mean_orders == pytest.approx(np.mean([p["num_orders"] for p in inside]))
        assert group.mean_recency_days == (pytest.approx(np.mean(recency)) if recency else None)
    for cell in week.rfm:
        inside = [
            p
            for p in people
            if cell.recency_from <= p["recency_score"] < cell.recency_from + 20
            and p["frequency_quartile"] == cell.frequency_quartile
        ]
        assert cell.num_users == len(inside)
        worth = [p["monetary"] for p in inside]
        assert cell.mean_monetary == (pytest.approx(np.mean(worth)) if worth else None)
    for spread in week.distributions:
        known = [p[spread.name] for p in people if p[spread.name] is not None]
        assert sum(spread.counts) == len(known)
        assert spread.num_unknown == len(people) - len(known)
        assert spread.num_zeros == known.count(0)
        assert spread.median == pytest.approx(np.median(known))


def test_row_order_and_parts_change_no_bit() -> None:
    rows, previous = _rows(999), _rows(800, seed=1)
    shuffled = rows.take(pa.array(np.random.default_rng(3).permutation(999)))
    parts = pa.concat_tables([shuffled.slice(0, 10), shuffled.slice(10)])
    assert _summarize(parts, previous) == _summarize(rows, previous)


def test_whole_numbers_have_a_bar_each() -> None:
    rows = _set(_rows(300), "num_orders", [0] * 100 + [1] * 150 + [3] * 50)
    spread = next(d for d in _summarize(rows).distributions if d.name == "num_orders")
    assert (spread.low, spread.high, spread.counts) == (-0.5, 3.5, (100, 150, 0, 50))


def test_a_few_giants_do_not_squeeze_a_distribution() -> None:
    spend = np.arange(1000) / 10 + 0.05
    spend[-3:] = 1e9
    rows = _set(_rows(1000), "spend", spend)
    spread = next(d for d in _summarize(rows).distributions if d.name == "spend")
    assert spread.high < 100
    assert sum(spread.counts) == 1000
    assert len(spread.counts) == 20


def test_a_quiet_week_raises_no_alert() -> None:
    rows = _rows(500)
    week = _summarize(rows, rows.select(["user_id", "segment", "cluster"]))
    assert week.alerts == ()
    assert (week.segment_psi, week.cluster_psi) == (0, 0)
    assert week.segment_migration is not None
    assert week.segment_migration.share_kept == 1
    assert week.cluster_migration is not None
    assert week.cluster_migration.adjusted_rand == 1


def test_a_shift_of_sizes_and_of_customers_raises_alerts() -> None:
    before = _set(_rows(100), "segment", ["loyal"] * 50 + ["lost"] * 50)
    rows = _set(_rows(100), "segment", ["loyal"] * 5 + ["lost"] * 95)
    week = _summarize(rows, before)
    assert _kinds(week) == ["segment_psi", "segment_kept"]
    shifted, kept = week.alerts
    assert (shifted.value, shifted.limit) == (week.segment_psi, 0.2)
    assert (kept.value, kept.limit) == (0.55, 0.7)
    assert kept.sentence.startswith("Only 55% of the customers stayed")
    lenient = MonitorSpec(max_psi=5, min_kept=0.5)
    assert _kinds(_summarize(rows, before, spec=lenient)) == []


def test_limits_themselves_are_no_alert() -> None:
    before = _set(_rows(100), "segment", ["loyal"] * 50 + ["lost"] * 50)
    rows = _set(_rows(100), "segment", ["loyal"] * 35 + ["lost"] * 65)
    week = _summarize(rows, before)
    assert week.segment_psi is not None
    exact = MonitorSpec(max_psi=week.segment_psi, min_kept=0.85)
    assert _kinds(_summarize(rows, before, spec=exact)) == []


def test_clusters_that_group_differently_raise_an_alert() -> None:
    before = _set(_rows(100), "cluster", ["c1", "c2"] * 50)
    rows = _set(_rows(100), "cluster", ["c1"] * 50 + ["c2"] * 50)
    assert _kinds(_summarize(rows, before)) == ["cluster_adjusted_rand"]


def test_groups_that_come_and_go_raise_alerts() -> None:
    before = _set(_rows(100), "segment", ["loyal"] * 98 + ["promising"] * 2)
    before = _set(before, "cluster", ["c1"] * 97 + ["c2", "noise", None])
    before = _set(before, "cluster_label", ["First"] * 97 + ["Early birds"] * 3)
    rows = _set(_rows(100), "segment", ["loyal"] * 97 + ["new", "loyal", "other"])
    rows = _set(rows, "cluster", ["c1"] * 97 + ["c3"] * 3)
    rows = _set(rows, "cluster_label", ["First"] * 97 + ["Night owls"] * 3)
    spec = MonitorSpec(max_psi=9, min_adjusted_rand=-1)
    week = _summarize(rows, before, spec=spec)
    assert _kinds(week) == [
        "segment_appeared",
        "segment_vanished",
        "cluster_retired",
        "cluster_new",
    ]
    assert "New customers has appeared" in week.alerts[0].sentence
    assert "Promising has vanished" in week.alerts[1].sentence
    assert "Early birds is retired" in week.alerts[2].sentence
    assert "Night owls" in week.alerts[3].sentence
    without_names = before.drop_columns(["cluster_label"])
    assert "c2 is retired" in _summarize(rows, without_names, spec=spec).alerts[2].sentence


def test_a_group_that_became_too_small_to_be_named_raises_no_alert() -> None:
    named = _set(_rows(100), "segment", ["loyal"] * 90 + ["promising"] * 10)
    named = _set(named, "cluster", ["c1"] * 90 + ["c2"] * 10)
    hidden = _set(_rows(100), "segment", ["loyal"] * 92 + ["other"] * 8)
    hidden = _set(hidden, "cluster", ["c1"] * 92 + [None] * 8)
    spec = MonitorSpec(max_psi=9, min_adjusted_rand=-1)
    assert _kinds(_summarize(hidden, named, spec=spec)) == []
    assert _kinds(_summarize(named, hidden, spec=spec)) == []


def test_a_cluster_that_changed_its_meaning_is_told() -> None:
    change = _Changed("c1", "Evening buyers", "Morning buyers", 1.25)
    week = summarize_week(
        _rows(50),
        None,
        as_of=AS_OF,
        spec=MonitorSpec(),
        min_segment_size=10,
        cluster_changes=[change],
    )
    (alert,) = week.alerts
    assert (alert.kind, alert.value, alert.limit) == ("cluster_meaning", 1.25, None)
    assert "Evening buyers" in alert.sentence
    assert "Morning buyers" in alert.sentence


def test_a_week_survives_json() -> None:
    week = _summarize(_rows(300), _rows(280, seed=4))
    assert week.alerts
    assert WeekSummary.from_dict(json.loads(json.dumps(week.to_dict()))) == week


def test_a_foreign_key_in_a_stored_week_is_a_named_error() -> None:
    stored = _summarize(_rows(30)).to_dict() | {"as_off": "2026-06-01"}
    with pytest.raises(InputError, match="as_off"):
        WeekSummary.from_dict(stored)


def test_a_week_without_customers_is_empty() -> None:
    nobody = _rows(20).slice(0, 0)
    week = _summarize(nobody, _rows(20))
    assert (week.num_users, week.segments, week.clusters, week.distributions) == (0, (), (), ())
    assert week.segment_psi is None
    assert _summarize(_rows(20), nobody).segment_migration is None


def test_inputs_that_cannot_be_right_are_named() -> None:
    rows = _rows(20)
    with pytest.raises(ValueError, match="time zone"):
        summarize_week(
            rows, None, as_of=datetime(2026, 6, 1), spec=MonitorSpec(), min_segment_size=10
        )
    with pytest.raises(ValueError, match="min_segment_size is 0"):
        summarize_week(rows, None, as_of=AS_OF, spec=MonitorSpec(), min_segment_size=0)
    for name in NEEDED_COLUMNS:
        with pytest.raises(ValueError, match=name):
            _summarize(rows.drop_columns([name]))


@pytest.mark.parametrize(
    "limits", [{"max_psi": 0}, {"min_kept": 1.5}, {"min_adjusted_rand": -2}, {"max_psi": np.nan}]
)
def test_a_limit_that_cannot_be_is_named(limits: dict[str, float]) -> None:
    (name,) = limits
    with pytest.raises(ValueError, match=name):
        MonitorSpec(**limits)


def test_a_value_that_is_no_number_is_unknown() -> None:
    rows = _set(_rows(3), "spend", [1.0, np.inf, np.nan])
    rows = _set(rows, "segment", ["loyal"] * 3)
    week = _summarize(rows)
    assert (week.segments[0].spend, week.segments[0].mean_spend) == (1.0, 1.0)
    assert json.loads(json.dumps(week.to_dict(), allow_nan=False))
