"""Replicas follow the champion; whatever goes wrong, the old model goes on answering."""

import asyncio

import pytest

from perso.errors import ArtifactError
from serve_app.champion import ChampionFollower


class Live:
    """Loads anything but version 666, after the troubles it was given."""

    def __init__(self):
        self.version = None
        self.loads = []
        self.troubles = []

    def load(self, version, folder):
        self.loads.append((version, str(folder)))
        if version == "666":
            raise ArtifactError("damaged")
        if self.troubles:
            raise self.troubles.pop(0)
        self.version = version


def unreadable_for_now():
    """What a bundle raises whose storage hiccups."""
    error = ArtifactError("factors cannot be read")
    error.__cause__ = OSError("stale file handle")
    return error


class Counted:
    def __init__(self):
        self.versions, self.failures = [], 0

    def set_model_version(self, version):
        self.versions.append(version)

    def count_failed_load(self):
        self.failures += 1


@pytest.fixture
def live():
    return Live()


@pytest.fixture
def counted():
    return Counted()


def follow(live, counted, answers):
    """Catch up once per answer of the watcher; an exception is a watcher that is down."""
    remaining = list(answers)

    async def ask():
        answer = remaining.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def scenario():
        follower = ChampionFollower(live, ask, counted)
        for _ in answers:
            await follower.catch_up()

    asyncio.run(scenario())


def test_each_new_champion_is_loaded_once(live, counted):
    follow(live, counted, [None, ("1", "/a"), ("1", "/a"), ("2", "/b"), ("1", "/a")])
    assert live.loads == [("1", "/a"), ("2", "/b"), ("1", "/a")]  # the last: a rollback
    assert counted.versions == ["1", "2", "1"]


def test_a_damaged_champion_is_refused_once_and_the_next_one_served(live, counted, caplog):
    follow(live, counted, [("1", "/a"), ("666", "/b"), ("666", "/b"), ("3", "/c")])
    assert [version for version, _ in live.loads] == ["1", "666", "3"]
    assert (live.version, counted.failures) == ("3", 1)
    assert "version 666 cannot be served: ArtifactError('damaged'); it is refused" in caplog.text


@pytest.mark.parametrize(
    "trouble", [OSError("hiccup"), unreadable_for_now(), MemoryError(), KeyError("bug")], ids=repr
)
def test_a_failure_that_may_pass_is_tried_again_logged_once_and_counted_always(
    live, counted, caplog, trouble
):
    live.troubles = [trouble, trouble]
    follow(live, counted, [("2", "/b")] * 4)
    assert live.loads == [("2", "/b")] * 3
    assert (live.version, counted.versions, counted.failures) == ("2", ["2"], 2)
    assert caplog.text.count("version 2 cannot be served") == 1


def test_damage_that_shows_after_a_failure_that_may_pass_is_final(live, counted, caplog):
    live.troubles = [OSError("hiccup"), ArtifactError("checksum")]
    follow(live, counted, [("2", "/b")] * 4)
    assert (len(live.loads), counted.failures) == (2, 2)
    assert "it is refused" in caplog.text


def test_nothing_ends_the_task_that_follows(live, counted, monkeypatch):
    monkeypatch.setattr("serve_app.champion.POLL_S", 0.01)
    live.troubles = [RuntimeError("bug")]
    answers = [RuntimeError("down"), ("7", "/a", "one too many"), ("1", "/a")]

    async def ask():
        answer = answers[0] if len(answers) == 1 else answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def scenario():
        following = asyncio.create_task(ChampionFollower(live, ask, counted).follow())
        while live.version != "1" and not following.done():
            await asyncio.sleep(0.01)
        assert not following.done()
        following.cancel()

    asyncio.run(asyncio.wait_for(scenario(), timeout=10))


def test_a_watcher_that_is_down_is_asked_again(live, counted, caplog):
    follow(live, counted, [("1", "/a"), OSError("down"), RuntimeError("down"), ("2", "/b")])
    assert live.version == "2"
    assert caplog.text.count("the champion is not known") == 1
