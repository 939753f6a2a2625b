"""Moving the champion: both ways, by two at once, and killed between any two steps."""

import itertools
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from perso.errors import ChampionMovedError, InputError, NoChampionError
from perso.registry import Registry
from perso.workspace import Workspace


def test_promotion_moves_the_old_champion_to_previous_and_rollback_swaps_them(registry, register):
    first, second = register(), register()
    registry.promote(first.version)
    registry.promote(second.version)
    aliases = {v.version: v.aliases for v in registry.versions()}
    assert aliases == {"2": ("champion",), "1": ("previous",)}
    assert registry.rollback().version == first.version
    assert registry.rollback().version == second.version


def test_promoting_the_champion_again_keeps_the_way_back(registry, register):
    first, second = register(), register()
    registry.promote(first.version)
    registry.promote(second.version)
    registry.promote(second.version)
    assert registry.rollback().version == first.version


def test_rollback_without_a_previous_champion_is_an_error(registry, register):
    registry.promote(register().version)
    with pytest.raises(NoChampionError, match="no previous champion"):
        registry.rollback()


def test_promoting_an_unknown_version_lists_the_known_ones(registry, register):
    register()
    register()
    with pytest.raises(InputError, match=r"'7'.*there are: 1, 2"):
        registry.promote("7")


def test_the_newest_version_is_the_challenger_until_it_is_promoted(registry, register):
    first, second = register(), register()
    assert {v.version: v.aliases for v in registry.versions()} == {"2": ("challenger",), "1": ()}
    registry.promote(first.version)
    assert registry.version("2").aliases == ("challenger",)
    registry.promote(second.version)
    assert registry.version("2").aliases == ("champion",)
    assert registry.version("1").aliases == ("previous",)
    assert register().aliases == ("challenger",)


def test_the_history_says_who_moved_what_when_and_why_newest_first(
    registry, register, workspace, monkeypatch
):
    monkeypatch.setenv("PERSO_USER", "ada")
    assert registry.history() == []
    began = datetime.now(UTC)
    first, second = register(), register()
    assert registry.history() == []
    registry.promote(first.version, why="the first", who="a search")
    registry.promote(second.version, why="better", is_forced=True)
    registry.promote(second.version, why="nothing moves")
    registry.rollback(why="slow")
    told = [
        (m.kind, m.from_version, m.to_version, m.who, m.why, m.is_forced, m.outcome)
        for m in registry.history()
    ]
    assert told == [
        ("rollback", "2", "1", "ada", "slow", False, "done"),
        ("promote", "1", "2", "ada", "better", True, "done"),
        ("promote", None, "1", "a search", "the first", False, "done"),
    ]
    instants = [move.at for move in registry.history()]
    assert instants == sorted(instants, reverse=True)
    assert began <= instants[-1] < instants[0] <= datetime.now(UTC)
    assert Registry(workspace).history() == registry.history()


def test_who_gives_no_name_is_the_user_on_this_machine(registry, register, monkeypatch):
    monkeypatch.delenv("PERSO_USER", raising=False)
    monkeypatch.setenv("LOGNAME", "grace")
    registry.promote(register().version, why="x" * 5000)
    (move,) = registry.history()
    assert move.who == f"grace@{os.uname().nodename}"
    assert len(move.why) == 2000
    assert move.why.endswith("x…")


def test_who_was_judged_against_another_champion_does_not_replace_this_one(registry, register):
    first, second, third = (register().version for _ in range(3))
    registry.promote(first, instead_of=None)
    registry.promote(second, instead_of=first)
    registry.promote(second, instead_of=first)  # done already: a repeated search
    for stale, says in ((first, "replace version 1"), (None, "replace no champion")):
        with pytest.raises(ChampionMovedError, match=f"{says}, but the champion is version 2"):
            registry.promote(third, instead_of=stale)
    assert registry.champion().version == second
    assert len(registry.history()) == 2


@pytest.fixture
def third_challenges(registry, register):
    """Copies of a database in which version 1 served before, 2 serves, and 3 is the challenger."""
    for _ in range(3):
        register()
    registry.promote("1")
    registry.promote("2")
    database = registry._store.folder / "mlflow.db"

    def third_challenges(folder):
        workspace = Workspace(folder)
        workspace.mlflow.mkdir(parents=True)
        shutil.copy(database, workspace.mlflow / "mlflow.db")
        return workspace

    return third_challenges


WRITES = (
    "set_registered_model_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
)


def lives_through(move, *, killed_at):
    """Whether a process that dies at its n-th write to the registry came to its end."""
    child = os.fork()
    if child == 0:
        from mlflow import MlflowClient

        left = killed_at

        def dying(write):
            def write_or_die(*arguments):
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return write(*arguments)

            return write_or_die

        for name in WRITES:
            setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))
        try:
            move()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return not os.WIFSIGNALED(status)


@pytest.mark.parametrize(
    ("move", "num_writes", "moves_to"),
    [
        (lambda registry: registry.promote("3", why="cut off"), 5, "3"),
        (lambda registry: registry.rollback(why="cut off"), 4, "1"),
    ],
    ids=["promote", "rollback"],
)
def test_killed_between_any_two_steps_a_champion_serves_and_the_history_is_true(
    third_challenges, tmp_path, move, num_writes, moves_to
):
    outcomes = []
    for number in range(1, num_writes + 2):
        workspace = third_challenges(tmp_path / f"killed-at-{number}")
        lived = lives_through(lambda w=workspace: move(Registry(w)), killed_at=number)
        assert lived == (number > num_writes)
        registry = Registry(workspace)
        champion, history = registry.champion().version, registry.history()
        newest = history[0]
        if number == 1:
            assert (champion, newest.why) == ("2", "")  # nothing was begun
        else:
            outcomes.append(newest.outcome)
            assert (newest.from_version, newest.to_version, newest.why) == (
                ("2", moves_to, "cut off")
            )
            assert champion == (moves_to if newest.outcome == "done" else "2")
        assert registry.rollback().version == ("1" if champion == "2" else "2")
        assert registry.history()[1:] == history
        assert "challenger" not in registry.version(champion).aliases
    assert outcomes == ["interrupted"] * 2 + ["done"] * (num_writes - 2)


def test_two_who_promote_at_once_do_so_one_after_the_other(third_challenges, tmp_path):
    workspace = third_challenges(tmp_path / "two")
    registries = [Registry(workspace), Registry(workspace)]
    with ThreadPoolExecutor(2) as pool:
        for versions in (("3", "1"), ("2", "3")):
            list(pool.map(Registry.promote, registries, versions))
    history = registries[0].history()
    assert all(move.outcome == "done" for move in history)
    assert {move.to_version for move in history} == {"1", "2", "3"}
    for newer, older in itertools.pairwise(history):
        assert newer.from_version == older.to_version
    assert registries[1].champion().version == history[0].to_version
    assert registries[0].rollback().version == history[0].from_version


def test_on_a_server_a_move_that_is_under_way_is_left_alone(registry, register, monkeypatch):
    """There is no lock: only what has been silent for a minute counts as cut off."""
    first, second = register(), register()
    registry.promote(first.version)
    trail = registry._promotions._trail
    key = trail.begin(
        "promote",
        from_version="1",
        to_version="2",
        previous=None,
        who="another",
        why="",
        is_forced=False,
    )

    def written_down():
        return {move.key: move.outcome for move in trail.moves()}[key]

    monkeypatch.setattr(type(registry._store), "has_lock", False)
    registry.promote(second.version)
    assert written_down() is None
    monkeypatch.setattr("perso.registry.promotion._PATIENCE", timedelta(0))
    registry.promote(first.version)
    assert written_down() == "done"
