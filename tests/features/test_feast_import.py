import subprocess
import sys

CHEAP = """
import sys, typeguard
real = typeguard.typechecked
from perso.features.feast_import import import_feast
feast = import_feast()
assert feast is import_feast()
assert "torch" not in sys.modules, "torch was loaded"
assert typeguard.typechecked is real, "typeguard stayed patched"
import torch
assert torch.ones(1).item() == 1
"""

READ = """
import sys
from pathlib import Path
if sys.argv[2] == "plain":
    import feast
from perso.features.store import open_features
from perso.workspace import Workspace
print(open_features(Workspace(Path(sys.argv[1]))).read_online(["ann", "nobody"]))
"""


def python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_feast_comes_without_torch_and_without_lasting_patches():
    python(CHEAP)


def test_a_cheap_import_reads_what_a_plain_import_reads(features, make_all, day, workspace):
    features.rows.write_rows(day(1), make_all(day(1), users=["ann"], segment="loyal"))
    features.sync()
    cheap = python(READ, str(workspace.root), "cheap")
    assert "loyal" in cheap
    assert cheap == python(READ, str(workspace.root), "plain")
