"""Model versions as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from perso.cli.model_card import Comparison, ModelCard, verdict_of
from perso.registry import ModelVersion, Move

_IN_A_LIST = ("ndcg", "recall", "coverage")
"""Metrics of a list of versions, each of the longest list."""


def versions_table(versions: Sequence[ModelVersion]) -> Table:
    """One row per version."""
    metrics = _longest([name for version in versions for name in version.metrics])
    table = Table("version", "aliases", "gate", "data", *metrics)
    for version in versions:
        verdict = verdict_of(version)
        said = "-" if verdict is None else "passed" if verdict.promoted else "refused"
        values = [_number(version.metrics.get(name)) for name in metrics]
        table.add_row(
            version.version,
            ", ".join(version.aliases),
            said,
            version.tags.get("data_key", "-")[:12],
            *values,
        )
    return table


def card_tables(card: ModelCard) -> Group:
    """A version from its aliases to its report."""
    aliases = f" ({', '.join(card.aliases)})" if card.aliases else ""
    facts = {"trained until": card.trained_until, "registered": card.created_at, **card.lineage}
    parts: list[Any] = [
        f"version {card.version}{aliases}",
        _facts(facts),
        "\nsettings",
        _facts({name: str(value) for name, value in card.settings.items()}),
    ]
    overall = Table("metric", "model", "popularity")
    for name, value in card.metrics.items():
        overall.add_row(name, _number(value), _number(card.popularity.get(name)))
    users = "" if card.num_users is None else f" over {card.num_users} users"
    parts += [f"\ntest period{users}", overall]
    if card.per_segment:
        metrics = _longest(list(card.metrics), ("ndcg", "recall", "hit_rate"))
        segments = Table("segment", "users", *metrics)
        for name, values in card.per_segment.items():
            users = str(card.num_users_by_segment.get(name, "-"))
            segments.add_row(escape(name), users, *(_number(values.get(m)) for m in metrics))
        parts += ["\nper segment", segments]
    parts.append(f"\ngate: {escape(card.verdict.reason) if card.verdict else 'not asked'}")
    if card.verdict:
        checks = Table("check", "", "why")
        for check in card.verdict.checks:
            said = "holds" if check.passed else "FAILS"
            checks.add_row(escape(check.name), said, escape(check.reason))
        parts.append(checks)
    parts.append("\nreport: " + escape(", ".join(card.reports) or "none beside the run"))
    return Group(*parts)


def comparison_tables(comparison: Comparison) -> Group:
    """Two versions side by side, the second against the first."""
    first, second = comparison.first, comparison.second
    names = [f"version {card.version}" for card in (first, second)]
    parts: list[Any] = []
    if not comparison.same_data:
        keys = [card.lineage.get("data_key", "?")[:12] for card in (first, second)]
        parts.append(
            f"measured on different data ({keys[0]} and {keys[1]}): a difference may be that of "
            "the periods; the gate of the newer one compares on one\n"
        )
    overall = Table("metric", *names, "difference", "")
    for name, values in comparison.overall.items():
        overall.add_row(name, *_difference(values))
    segments = Table(f"{comparison.metric} of", "users", *names, "difference", "")
    for name, metrics in comparison.per_segment.items():
        if comparison.metric in metrics:
            users = [card.num_users_by_segment.get(name, 0) for card in (first, second)]
            counted = " / ".join(dict.fromkeys(map(str, users)))
            segments.add_row(escape(name), counted, *_difference(metrics[comparison.metric]))
    return Group(*parts, overall, *([segments] if segments.rows else []))


def history_table(moves: Sequence[Move]) -> Table:
    """One row per move."""
    table = Table("when (UTC)", "who", "what", "from", "to", "why")
    for move in moves:
        what = move.kind + (", forced" if move.is_forced else "")
        what += "" if move.outcome == "done" else f", {move.outcome}"
        table.add_row(
            f"{move.at:%Y-%m-%d %H:%M:%S}",
            escape(move.who),
            what,
            move.from_version or "-",
            move.to_version,
            escape(move.why or "-"),
        )
    return table


def _facts(facts: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(name, escape(value))
    return table


def _longest(metrics: Sequence[str], wanted: Sequence[str] = _IN_A_LIST) -> list[str]:
    """Of each wanted metric the one with the longest list, where there is one."""
    found = []
    for base in wanted:
        lengths = [int(name.split("@")[1]) for name in metrics if name.startswith(f"{base}@")]
        found += [f"{base}@{max(lengths)}"] if lengths else []
    return found


def _difference(values: tuple[float, float]) -> list[str]:
    first, second = values
    relative = f"{second / first - 1:+.1%}" if first > 0 else ""
    return [_number(first), _number(second), f"{second - first:+.4f}", relative]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
