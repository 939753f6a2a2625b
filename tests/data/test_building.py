from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from perso.data.building import build_once


def test_of_many_builders_one_builds_and_the_others_find_it(tmp_path):
    folder, start = tmp_path / "built", Barrier(4)

    def build(_):
        start.wait()
        with build_once(folder) as site:
            if site is None:
                return False
            site.mkdir()
            (site / "file").write_text("whole")
            return True

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(build, range(4))) == [False, False, False, True]
    assert (folder / "file").read_text() == "whole"


def test_what_failed_is_not_taken_for_finished_and_is_cleared_by_the_next(tmp_path):
    folder = tmp_path / "built"
    with pytest.raises(RuntimeError), build_once(folder) as site:
        site.mkdir()
        (site / "half").touch()
        raise RuntimeError
    assert not folder.exists()
    with build_once(folder) as site:
        assert not site.exists()
        site.mkdir()
    assert list(folder.iterdir()) == []
