"""Replicas follow the champion; whatever goes wrong, the old model goes on answering."""

import asyncio

import pytest

from perso.errors import ArtifactError
from serve_app.champion import ChampionFollower


class Live:
    """Loads anything but the version called ``damaged``."""

    def __init__(self):
        self.version = None
        self.loads = []

    def load(self, version, folder):
        self.loads.append((version, str(folder)))
        if version == "666":
            raise ArtifactError("damaged")
        self.version = version


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
    assert "cannot be served: damaged" in caplog.text


def test_a_watcher_that_is_down_is_asked_again(live, counted, caplog):
    follow(live, counted, [("1", "/a"), OSError("down"), RuntimeError("down"), ("2", "/b")])
    assert live.version == "2"
    assert caplog.text.count("the champion is not known") == 1
