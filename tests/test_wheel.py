"""The wheel: what it holds, and that it works where nothing else of the repository is."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import driftloop

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("schemas", "detectors", "compression", "streams")
CLEAN = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def done(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=folder, env=CLEAN, capture_output=True, text=True, check=False)


def source_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # From a copy: a build leaves build/ and *.egg-info beside the sources, and what an old one left would get into the wheel.
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in source_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    built = done([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)], source)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = out.glob("driftloop-*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the bin folder of an environment that holds the wheel and sees the dependencies of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    binaries = folder / "bin"
    python = str(binaries / "python")
    installed = done(
        [sys.executable, "-m", "pip", f"--python={python}", "install", "--no-deps", "--no-index", "--no-compile", str(wheel)],
        folder,
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    # Installing the dependencies would take minutes. A folder named in a .pth file is put on the path, but the .pth files in it
    # are not read: so these dependencies are seen here, while the editable install among them, which is one, is not.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    return binaries


@pytest.fixture(params=["an empty folder", "the repository root"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return ROOT if request.param == "the repository root" else tmp_path


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    sources = {f"driftloop/{name}" for name in source_files() if name.suffix == ".py" and str(name.parent) in (".", *ROOMS)}
    package = {name for name in names if ".dist-info/" not in name}
    assert package == sources | {"driftloop/py.typed", "driftloop/deploy/kafka/pom.xml"}


def test_plain_requirements_bring_no_torch(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    wanted = [line for line in archive.read(name).decode().splitlines() if line.startswith("Requires-Dist:")]
    assert len(wanted) > 10
    assert [line for line in wanted if "torch" in line or "onnxscript" in line] == [
        line for line in wanted if ("torch" in line or "onnxscript" in line) and "extra == 'worker'" in line.replace('"', "'")
    ]


def test_the_installed_package_is_the_one_imported(environment: Path, folder: Path) -> None:
    code = "import driftloop, sys; print(driftloop.__file__); sys.exit('torch' in sys.modules)"
    told = done([str(environment / "python"), "-W", "error", "-c", code], folder)
    assert told.returncode == 0, told.stderr
    assert Path(told.stdout.strip()).is_relative_to(environment.parent)


def test_the_command_works(environment: Path, folder: Path, tmp_path: Path) -> None:
    command = str(environment / "driftloop")
    told = done([command, "--help"], folder)
    assert told.returncode == 0, told.stderr
    assert "replay" in told.stdout
    assert done([command, "--version"], folder).stdout == f"driftloop {driftloop.__version__}\n"
    table = tmp_path / "table.csv"
    table.write_text("p,y\n" + "".join(f"{row % 2},{row % 2}\n" for row in range(200)), "utf-8")
    replayed = done([command, "replay", str(table), "--label", "y", "--prediction", "p", "--summary"], folder)
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["labels"] == 200


def test_the_standard_library_is_not_hidden(environment: Path, folder: Path) -> None:
    for arguments in (["-c", "import gzip, zipfile, tarfile, bz2"], ["-m", "gzip", "--help"], ["-m", "driftloop", "--version"]):
        told = done([str(environment / "python"), *arguments], folder)
        assert told.returncode == 0, told.stderr
