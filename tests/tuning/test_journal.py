"""A search on disk: whole files whatever happens, and the search that --resume finds."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from perso.errors import ArtifactError
from perso.spec import parse_spec, spec_to_dict
from perso.tuning.journal import SearchJournal, search_key
from perso.tuning.points import Point, planned_points
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import Trial

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def begin(tmp_path, search):
    """Begins searches in one folder, a minute after each other."""
    begun = []

    def begin(spec=None, *data):
        spec = spec or search()
        at = NOW + timedelta(minutes=len(begun))
        key = search_key(spec, *data)
        journal = SearchJournal.begin(tmp_path, spec, key=key, run_id=f"run{len(begun)}", now=at)
        begun.append(journal)
        return journal

    return begin


def a_trial(number=0, spec=None, **changes):
    spec = spec or SearchSpec()
    return replace(Trial.begin(planned_points(spec)[number], spec), **changes)


def test_a_search_knows_its_run_and_when_it_was_begun(begin, search):
    journal = begin(search(name="spring sale"))
    assert journal.folder.name == "spring sale-run0"
    assert (journal.run_id, journal.begun_at, journal.attempt) == ("run0", NOW, 1)
    assert SearchJournal(journal.folder).begun_at.tzinfo is not None
    head = json.loads((journal.folder / "search.json").read_text())
    assert parse_spec(SearchSpec, head["spec"]) == search(name="spring sale")


def test_what_is_written_of_a_trial_is_read_again(begin):
    journal = begin()
    assert journal.read(3) is None
    assert journal.trials() == []
    late = a_trial(3, status="failed", error="Größe 0 …")
    early = a_trial(
        1,
        status="stopped",
        metrics={"ndcg@20": 0.25, "mrr@20": float("nan")},
        per_segment={"loyal": {"ndcg@20": 1 / 3}},
        num_users_by_segment={"loyal": 31},
        losses=(0.5, 0.25),
        curve=((1, 0.1), (3, 0.25)),
        epochs=3,
    )
    for trial in (late, early):
        journal.write(a_trial(trial.number))
        journal.write(trial)
    for found, written in zip(journal.trials(), (early, late), strict=True):
        np.testing.assert_equal(found.to_dict(), written.to_dict())
        assert found.point == written.point
        np.testing.assert_equal(journal.read(found.number).to_dict(), written.to_dict())


def test_trials_come_by_number_even_beyond_what_names_have_room_for(begin):
    journal = begin()
    for number in (100_000, 7, 99_999):
        journal.write(Trial.begin(Point(number=number, grid=0, searched={}, seed=0), SearchSpec()))
    assert [trial.number for trial in journal.trials()] == [7, 99_999, 100_000]


KILLED_MIDWAY = """
import os, signal, sys, time
from pathlib import Path
from perso.tuning.journal import SearchJournal
from perso.tuning.trial import Trial

journal = SearchJournal(Path(sys.argv[1]))
seen = set()
for turn in range(8):
    before = journal.read(0)
    writer = os.fork()
    if not writer:
        count = 0
        while True:
            count += 1
            losses = (float(count + 1000 * turn),) * 5_000
            journal.write(Trial(number=0, grid=0, settings={}, seed=0, losses=losses))
    while journal.read(0) == before:
        time.sleep(0.001)
    time.sleep(0.003 * turn)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    trial = journal.read(0)
    assert len(trial.losses) == 5_000 and len(set(trial.losses)) == 1
    assert journal.trials() == [trial]
    seen.add(trial.losses[0])
left = [path.name for path in (journal.folder / "trials").iterdir() if path.suffix != ".json"]
print(len(seen), len(left))
"""


def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(begin):
    done = subprocess.run(
        [sys.executable, "-c", KILLED_MIDWAY, str(begin().folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    versions, halves = map(int, done.stdout.split())
    assert versions == 8
    assert halves > 0  # some were killed while they wrote


def test_the_newest_unfinished_search_of_the_key_is_found(begin, tmp_path, search):
    key = search_key(search(), "data")
    assert SearchJournal.unfinished(tmp_path, key) is None
    first, second, third = (begin(search(), "data") for _ in range(3))
    begin(search(), "other data")
    begin(search(k=(5, 20)), "data")
    assert SearchJournal.unfinished(tmp_path, key) == third
    third.end(NOW + timedelta(hours=1))
    assert SearchJournal.unfinished(tmp_path, key) == second
    first.end(NOW + timedelta(hours=1))
    second.end(NOW + timedelta(hours=1))
    assert SearchJournal.unfinished(tmp_path, key) is None
    assert first.begun_at == NOW


def test_nothing_is_unfinished_where_there_is_no_folder(tmp_path):
    assert SearchJournal.unfinished(tmp_path / "nowhere", "key") is None


@pytest.mark.parametrize(
    "change",
    [
        {"k": (5, 10, 20)},
        {"objective": "recall@5"},
        {"seeds": (1,)},
        {"retries": 5},
        {"fixed": {"epochs": 9}},
        {"name": "other"},
    ],
    ids=str,
)
def test_another_spec_is_another_search(search, change):
    assert search_key(search(**change), "data") != search_key(search(), "data")


def test_the_key_is_of_the_resolved_spec_and_the_data(search):
    again = parse_spec(SearchSpec, spec_to_dict(search()))
    assert search_key(again, "data", "side") == search_key(search(), "data", "side")
    assert search_key(search(), "data", "side") != search_key(search(), "data")
    assert search_key(search(), "a", "b") != search_key(search(), "b", "a")


def test_attempts_are_counted_and_nothing_else_of_the_search_changes(begin):
    journal = begin()
    journal.write(a_trial())
    journal.begin_again()
    journal.begin_again()
    assert SearchJournal(journal.folder).attempt == 3
    assert (journal.run_id, journal.begun_at) == ("run0", NOW)
    assert len(journal.trials()) == 1


def test_checkpoints_come_newest_first_over_all_attempts(begin):
    journal = begin()
    journal.begin_again()
    journal.begin_again()
    made = [(1, 2), (1, 10), (3, 0), (3, 9), (3, 11)]
    for attempt, count in made:
        folder = journal.trial_folder(4, attempt=attempt) / f"checkpoint_{count:06d}"
        folder.mkdir(parents=True)
    journal.trial_folder(5, attempt=3).mkdir()
    found = [(folder.parts[-3], folder.name[-2:]) for folder in journal.checkpoints(4)]
    assert found == [
        ("tune-3", "11"),
        ("tune-3", "09"),
        ("tune-3", "00"),
        ("tune-1", "10"),
        ("tune-1", "02"),
    ]
    assert list(journal.checkpoints(5)) == list(journal.checkpoints(6)) == []


@pytest.mark.parametrize("text", ["", '{"number": 0', "{}", "[]", '{"curve": [], "losses": []}'])
def test_a_damaged_file_is_named_with_what_to_do(begin, text):
    journal = begin()
    journal.write(a_trial())
    (path,) = (journal.folder / "trials").glob("*.json")
    path.write_text(text)
    with pytest.raises(ArtifactError, match=r"00000\.json cannot be read: .* remove its search"):
        journal.read(0)
    with pytest.raises(ArtifactError, match="remove its search"):
        journal.trials()


def test_a_search_has_one_folder_that_nobody_else_begins(begin, tmp_path, search):
    journal = begin()
    with pytest.raises(FileExistsError):
        SearchJournal.begin(tmp_path, search(), key="k", run_id=journal.run_id, now=NOW)


def test_a_search_that_runs_is_not_run_by_another_process(begin):
    journal = begin()
    script = (
        "import sys; from pathlib import Path; from perso.tuning.journal import SearchJournal\n"
        "with SearchJournal(Path(sys.argv[1])).held(): print('held')"
    )

    def another():
        command = [sys.executable, "-c", script, str(journal.folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with journal.held():
        assert "another process runs the search in" in another().stderr
    assert another().stdout == "held\n"
