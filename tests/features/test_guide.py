"""The consumers' guide does what it says: its Python and its two shell commands, as written."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perso.dictionary import SERVICES, USER_SEGMENTS_V1
from perso.features.store import open_features
from perso.workspace import Workspace

GUIDE = (Path(__file__).parents[2] / "docs" / "features.md").read_text()
ASKED = datetime(2011, 12, 1, tzinfo=UTC)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def shop(tmp_path, make_all, monkeypatch):
    """A root where the guide expects it, with the customers that it asks for."""
    monkeypatch.delenv("PERSO_FEATURE_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    features = open_features(Workspace(tmp_path / ".perso"))
    features.apply()
    for as_of, segment in (
        (datetime(2011, 11, 20, tzinfo=UTC), "loyal"),
        (datetime(2011, 12, 9, tzinfo=UTC), "champions"),
    ):
        tables = make_all(as_of, users=["17850", "12583"], segment=segment)
        features.rows.write_rows(as_of, tables)
    features.sync()
    return tmp_path


def test_ten_lines_of_python_read_a_customer_now_and_then(shop):
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    found = {}
    exec(compile(code, "docs/features.md", "exec"), found)
    assert found["now"]["user_id"] == ["17850", "12583"]
    assert found["now"]["segment"] == ["champions", "champions"]
    assert set(found["now"]) == {"user_id", *USER_SEGMENTS_V1.feature_names}
    (then,) = found["then"].to_dict("records")
    assert then["segment"] == "loyal"
    assert {"user_id", "event_timestamp", *USER_SEGMENTS_V1.feature_names} == set(then)


def test_the_curl_gets_a_customer_from_feasts_server(shop):
    serve, curl = blocks("bash")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # As written but for the port, which another server may have.
    assert "6566" in serve and "6566" in curl
    serve, curl = (text.replace("6566", str(port)) for text in (serve, curl))
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    log = shop / "serve.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            shlex.split(serve),
            cwd=shop,
            env=os.environ | {"PATH": paths},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            asked = subprocess.run(
                ["bash", "-c", curl], capture_output=True, text=True, check=False
            )
            if asked.returncode == 0:
                break
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.3)
    finally:
        server.terminate()
        server.wait(timeout=20)
    answer = json.loads(asked.stdout)
    names = answer["metadata"]["feature_names"]
    assert answer["results"][names.index("segment")]["values"] == ["champions"]


def test_every_service_and_store_is_named():
    from perso.features.repository import repository_folder

    for name in (*SERVICES, "recommender_context_v1"):
        assert f"`{name}`" in GUIDE, name
    for overlay in (repository_folder() / "overlays").glob("*.yaml"):
        assert f"`{overlay.stem}`" in GUIDE, overlay.stem
        for variable in re.findall(r"\$\{(PERSO_\w+)\}", overlay.read_text()):
            ending = variable.removeprefix(f"PERSO_{overlay.stem.upper()}")
            told = variable in GUIDE or f"`{ending}`" in GUIDE
            assert told or f"overlays/{overlay.name}" in GUIDE, variable


def test_every_command_is_one_that_perso_has():
    import typer

    from perso.cli import app

    root = typer.main.get_command(app)
    for group, command in set(re.findall(r"perso (features|segments) (\w+)", GUIDE)):
        assert command in root.commands[group].commands, (group, command)
