"""The arrows between folders: who may import whom, and that importing starts nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS: list[set[str]] = [
    {"perso.schema", "perso.errors", "perso.workspace", "perso.spec", "perso.dictionary"},
    {"perso.data", "perso.pages"},
    {"perso.models", "perso.segments", "perso.features", "perso.stream"},
    {"perso.evaluation", "perso.registry", "perso.tuning", "perso.online"},
    {"perso.distributed"},
    {"serve_app", "tune_jobs", "perso.cli", "perso.demo"},
]
LAYER_OF = {package: level for level, layer in enumerate(LAYERS) for package in layer}

MAY_IMPORT_RAY = {"perso.distributed", "serve_app"}
MAY_IMPORT_FEAST = {"perso.features", "feature_repo"}
MAY_IMPORT_MLFLOW = {"perso.registry"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str:
    """The unit that LAYERS speaks of: ``perso.data`` for ``perso.data.split``."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "perso" else parts[0]


def sources() -> list[Path]:
    folders = ("perso", "serve_app", "tune_jobs")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Every module a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            found.add(node.module or "")
            if node.module == "perso":
                found |= {f"perso.{alias.name}" for alias in node.names}
    return found


def test_every_package_has_its_place_in_the_layers():
    packages = {package_of(module_name(path)) for path in sources()} - {"perso"}
    assert packages == set(LAYER_OF)


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_point_downwards(path):
    importer = package_of(module_name(path))
    if importer == "perso":
        return
    for module in imported_modules(path):
        target = package_of(module)
        assert target != "feature_repo", f"{importer} imports feature_repo"
        if target in LAYER_OF:
            assert LAYER_OF[target] <= LAYER_OF[importer], f"{importer} imports {target}"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [("ray", MAY_IMPORT_RAY), ("feast", MAY_IMPORT_FEAST), ("mlflow", MAY_IMPORT_MLFLOW)],
)
def test_a_heavy_library_stays_in_its_folder(library, allowed):
    for path in sources():
        imports = {module.split(".")[0] for module in imported_modules(path)}
        if library in imports:
            assert package_of(module_name(path)) in allowed, f"{path} imports {library}"


CORE_IMPORT = """
import importlib, os, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "feast", "mlflow"}:
            raise ImportError(f"{name} was imported")

def audit(event, args):
    # Numba keeps machine code where Python keeps bytecode.
    if event in {"os.mkdir", "open"} and "__pycache__" in str(args[0]).split(os.sep):
        return
    if event in {"os.mkdir", "socket.connect", "socket.bind", "subprocess.Popen"}:
        raise RuntimeError(f"importing did {event} {args}")
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        raise RuntimeError(f"importing wrote {args[0]}")

for heavy in ("torch", "pandas", "pyarrow.parquet", "scipy.stats"):  # libraries may look around
    importlib.import_module(heavy)
sys.dont_write_bytecode = True
sys.meta_path.insert(0, Refuse())
sys.addaudithook(audit)
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_the_core_imports_without_ray_feast_and_mlflow_and_starts_nothing(tmp_path):
    core = [
        module_name(path)
        for path in sources()
        if package_of(module_name(path)) not in {"perso.distributed", "serve_app", "tune_jobs"}
    ]
    done = subprocess.run(
        [sys.executable, "-c", CORE_IMPORT, *core],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(tmp_path.iterdir())


def test_help_does_not_import_ray_or_torch():
    code = (
        "import sys; sys.argv=['perso','--help']\n"
        "from perso.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'ray','torch','pandas','mlflow','feast'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
