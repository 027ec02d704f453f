"""The walls: import direction, file size, names, and a standard library that nothing hides."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
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
# A class is a thing: its docstring begins with a noun, not with what a function's docstring would begin with.
VERBS = re.compile(
    "(Add|Append|Ask|Be|Build|Carry|Check|Count|Describe|End|Find|Fold|Follow|Give|Handle|Hold|Judge|Keep|Make|Match|Move|Name|Open|Point|"
    "Read|Refuse|Remember|Represent|Return|Run|Save|Say|Send|Show|Size|Start|Store|Take|Tell|Tie|Track|Turn|Walk|Watch|Write)[ ,.:;]"
)
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


def circle(folder: Path) -> list[str]:
    """Return the files of a circle of imports inside a folder, function bodies and TYPE_CHECKING included; empty if there is none."""
    files = {path.stem: path for path in folder.glob("*.py")}
    graph = {name: {module.split(".")[0] for level, module, _ in imports(path) if level == 1} for name, path in files.items()}
    try:
        TopologicalSorter({name: found & set(files) for name, found in graph.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("room", [".", *ROOMS])
def test_no_circle_of_imports_inside_a_room(room: str) -> None:
    assert not circle(ROOT / room)


@pytest.mark.parametrize(
    "back", ["from .one import x", "def f():\n    from . import one", "if TYPE_CHECKING:\n    from .one import x"]
)
def test_a_circle_of_imports_is_found(tmp_path: Path, back: str) -> None:
    (tmp_path / "one.py").write_text("from .two import x\nfrom ..one import y\n", "utf-8")
    (tmp_path / "two.py").write_text("from ..one import x\n", "utf-8")
    assert not circle(tmp_path)
    (tmp_path / "two.py").write_text(back, "utf-8")
    assert set(circle(tmp_path)) == {"one", "two"}


def verb_docstrings(source: str) -> list[str]:
    """Return the classes whose docstring begins with a verb, as `line name: docstring`."""
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    told = [(node, ast.get_docstring(node) or "") for node in classes]
    return [f"{node.lineno} {node.name}: {text}" for node, text in told if VERBS.match(text)]


@pytest.mark.parametrize("folder", [".", *ROOMS])
def test_a_class_docstring_is_a_noun_phrase(folder: str) -> None:
    for path in sorted((ROOT / folder).glob("*.py")):
        assert not verb_docstrings(path.read_text("utf-8")), path.relative_to(ROOT)


def test_a_class_docstring_that_is_a_verb_is_found() -> None:
    source = 'class A:\n    """{}"""\n'
    for verb in ("Be one record.", "Hold rows.", "Start, find and stop it."):
        assert verb_docstrings(source.format(verb)), verb
    assert not verb_docstrings(source.format("One record."))


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


@cache
def modules_of(path: Path) -> set[Path]:
    """Return the files of ours that a file imports by name, function bodies included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            inside, base = node.module.split(".") if node.module else [], ROOT
            if node.level:
                base = path.parents[node.level - 1]
            elif inside.pop(0) != "driftloop":
                continue
            # What is imported from a place is a file there, or a name in the file of that place.
            places = [inside, *([*inside, alias.name] for alias in node.names)]
            found |= {base.joinpath(*place).with_suffix(".py") for place in places if place}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {ROOT.joinpath(*name[1:]).with_suffix(".py") for name in names if name[0] == "driftloop" and name[1:]}
    return {one for one in found if one.is_file()}


def reached(path: Path) -> set[Path]:
    """Return the files of ours that come in with a file."""
    found, left = set(), [path]
    while left:
        new = modules_of(left.pop()) - found
        found |= new
        left += new
    return found


def named_elsewhere() -> dict[str, list[str]]:
    """Return by file name the tests that ARCHITECTURE.md says it is tested in."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    section = text.partition("\n## Tests of files without one of their name\n")[2].partition("\n## ")[0]
    found: dict[str, list[str]] = {}
    for entry in re.findall(r"^- `([\w/]+\.py)`: ((?:.|\n  )*)", section, re.MULTILINE):
        for name in re.findall(r"`(\w+\.py)`", entry[1]):
            found.setdefault(name, []).append(entry[0])
    return found


def test_every_file_has_a_test_of_its_name_or_the_document_says_which() -> None:
    own = {path.name.removeprefix("test_") for folder in ("tests", "tests/kafka") for path in (ROOT / folder).glob("test_*.py")}
    files = {path.name: path for room in (".", *ROOMS) for path in (ROOT / room).glob("*.py") if path.name != "__init__.py"}
    said = named_elsewhere()
    assert sorted(said) == sorted(set(files) - own), "the section in ARCHITECTURE.md names the files without a test of their name"
    for name, tests in said.items():
        for test in tests:
            path = ROOT / "tests" / test
            run = '"-m", "driftloop"' if name == "__main__.py" else f"driftloop.{files[name].parent.name}.{files[name].stem}"
            assert files[name] in reached(path) or run in path.read_text("utf-8"), f"{test} neither imports nor runs {name}"


def test_import_is_lean() -> None:
    heavy = "{'torch', 'faust', 'river', 'onnx', 'matplotlib', 'scipy'}"
    code = f"import driftloop, sys; bad = {heavy} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
