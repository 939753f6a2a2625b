"""The command line as a user meets it: help, one-sentence errors, exit codes."""

import json
import subprocess
import sys

import pytest

from perso.workspace import Workspace


def perso(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", "from perso.cli import main; main()", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["prepare"],
        ["segments", "run"],
        ["segments", "describe"],
        ["segments", "report"],
        ["features", "sync"],
        ["features", "historical"],
        ["features", "check"],
        ["features", "freshness"],
        ["tune"],
        ["serve"],
        ["recommend"],
        ["demo"],
        ["models", "list"],
        ["models", "show"],
        ["models", "compare"],
        ["models", "history"],
        ["models", "promote"],
        ["models", "rollback"],
        ["events", "export"],
    ],
    ids=" ".join,
)
def test_every_command_explains_itself(command, tmp_path):
    done = perso(*command, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert not list(tmp_path.iterdir()), "help wrote something"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "--source", "oracle", "--path", "x"], "'synthetic', 'events'"),
        (["prepare", "--source", "events"], "needs a path"),
        (["prepare", "--spec", "nowhere.yaml"], "cannot read spec"),
        (["tune", "--spec", "typo.yaml"], "serach"),
        (["segments", "run"], "perso prepare"),
        (["segments", "run", "--window", "soon"], "26w"),
        (["segments", "run", "--since", "2026-01-01"], "--step"),
        (["segments", "run", "--spec", "gap.yaml"], "no segment covers recency 1, frequency 1"),
        (["segments", "report"], "perso segments run"),
        (["segments", "describe", "--view", "user_taste"], "user_affinities"),
        (["features", "sync"], "perso segments run"),
        (["features", "check"], "perso features sync"),
        (["features", "historical", "--rows", "no.parquet", "--out", "x.parquet"], "cannot read"),
        (["events", "export", "out.jsonl"], "perso serve"),
        (["recommend", "--out", "lists"], "--all-users or --users FILE"),
        (["prepare", "--root", "typo.yaml"], "is a file"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(arguments, message, tmp_path):
    (tmp_path / "typo.yaml").write_text("serach: {}\n")
    gap = "segments: {rfm: {segments: [{name: regulars, frequency: [2, 4]}]}}\n"
    (tmp_path / "gap.yaml").write_text(gap)
    done = perso(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("perso: ")
    assert message in done.stderr


def test_a_dry_run_prints_every_trial_and_leaves_nothing_behind(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text("search: {grids: [{grid: {l2: [0.125, 0.5]}}, {family: als}], seeds: [0, 1]}")
    done = perso("tune", "--spec", job, "--dry-run", "--root", tmp_path / "root", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("l2=0.125") == 2
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [words[0] for words in rows if words and words[0].isdigit()] == list("012345")
    assert "perso prepare" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


def test_the_dictionary_of_features_can_be_read_by_programs(tmp_path):
    done = perso("segments", "describe", "--view", "user_rfm", "--json", cwd=tmp_path)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["recency_days"]["null"] == "never bought"
    assert rows["segment"]["services"] == ["user_segments_v1", "recommender_v1"]
    assert not list(tmp_path.iterdir()), "a description wrote something"


def test_exported_events_are_complete(tmp_path):
    from datetime import UTC, datetime

    from perso.stream.event import Event
    from perso.stream.event_log import EventLog

    click = Event(
        event_id="e1",
        event_type="view_item",
        session_id="s",
        item_id="i",
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
    )
    EventLog(Workspace.open(tmp_path / "root").event_log).append([click])
    done = perso("events", "export", "out.jsonl", "--root", tmp_path / "root", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.jsonl").read_text())["event_id"] == "e1"
