"""The walls: import direction, file size, names, and a standard library that nothing hides."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("schemas", "detectors", "compression", "streams")
ALLOWED = {
    "schemas": {"schemas"},
    "detectors": {"schemas", "detectors"},
    "compression": {"schemas", "compression"},
    "streams": {"schemas", "detectors", "compression", "streams", "settings"},
}
FORBIDDEN = {
    "schemas": {"confluent_kafka", "faust", "mode", "torch", "river", "onnxruntime", "time"},
    "detectors": {"confluent_kafka", "faust", "mode", "torch", "onnx", "onnxruntime", "time", "os", "pickle", "random", "fsspec"},
    "compression": {"confluent_kafka", "faust", "mode", "river", "time", "pickle"},
    "streams": {"pickle"},
}
BAD_NAMES = {"utils", "common", "helpers", "manager", "core"}
PYTHON_FILES = sorted(
    path for folder in (".", *ROOMS, "tests", "tests/kafka", "benchmarks", "examples") for path in (ROOT / folder).glob("*.py")
)


def imports(path: Path) -> list[tuple[int, str, int]]:
    """Return (level, module, line) of every import of a file, function bodies included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found += [(node.level, name, node.lineno) for name in names]
        elif isinstance(node, ast.Import):
            found += [(0, alias.name, node.lineno) for alias in node.names]
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room: str) -> None:
    files = sorted((ROOT / room).glob("*.py"))
    assert files
    for path in files:
        for level, module, line in imports(path):
            first = module.split(".")[0]
            where = f"{room}/{path.name}:{line} imports {module}"
            assert not (level == 0 and first == "driftloop"), f"{where}: imports inside the package are relative"
            if level == 2:
                assert first in ALLOWED[room] | {"__version__"}, where
            if level == 0:
                assert first not in FORBIDDEN[room], where


def test_only_streams_and_benchmarks_import_kafka_clients() -> None:
    for path in PYTHON_FILES:
        folder = path.parent.name
        if folder in ("streams", "benchmarks", "tests", "kafka", "examples"):
            continue
        assert not {module.split(".")[0] for level, module, _ in imports(path) if level == 0} & {"confluent_kafka", "faust"}, path


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_small_named_and_introduced(path: Path) -> None:
    source = path.read_text("utf-8")
    assert source.count("\n") < 400, "files stay under 400 lines"
    assert path.stem not in BAD_NAMES
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "the first line is the file's entry in the file map"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 40, f"{node.name} has {length} lines, functions stay within 40"


def test_rooms_are_namespace_portions() -> None:
    for room in (*ROOMS, "tests", "tests/kafka"):
        assert not (ROOT / room / "__init__.py").exists(), room


def test_folders_stay_one_level_deep() -> None:
    for room in ROOMS:
        folders = [path.name for path in (ROOT / room).iterdir() if path.is_dir() and path.name != "__pycache__"]
        assert not folders, f"{room} holds folders: {folders}"


@pytest.mark.parametrize("arguments", [["-c", "import gzip, zipfile, tarfile, bz2"], ["-m", "gzip", "--help"]])
def test_the_standard_library_is_not_hidden_at_the_root(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_import_is_lean() -> None:
    heavy = "{'torch', 'faust', 'river', 'onnx', 'matplotlib', 'scipy'}"
    code = f"import driftloop, sys; bad = {heavy} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
