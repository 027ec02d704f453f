"""Environments of the peers, made on demand below .cache/: quixstreams pins another confluent-kafka, the others are no dependencies."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks"
LIGHTGBM = ("lightgbm==4.*", "onnxmltools==1.*", "scikit-learn", "onnx", "pandas", "packaging")
QUIXSTREAMS = ("quixstreams==3.28.*", "river", "orjson")


class Unavailable(Exception):
    """Say why a peer cannot run here."""


def quixstreams_python() -> str:
    """Return the interpreter of an environment with quixstreams; raises Unavailable."""
    return _environment("quixstreams", QUIXSTREAMS)


def lightgbm_python() -> str:
    """Return an interpreter with lightgbm and onnxmltools: this one where it has both, else that of an environment; raises Unavailable."""
    if all(importlib.util.find_spec(name) for name in ("lightgbm", "onnxmltools")):
        return sys.executable
    return _environment("lightgbm", LIGHTGBM)


def orjson_path() -> str:
    """Return a folder to put on PYTHONPATH so that this interpreter finds orjson; raises Unavailable."""
    folder = CACHE / "orjson"
    if not (folder / "orjson").is_dir():
        _run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(folder), "orjson"])
    return str(folder)


def versions(python: str, packages: list[str]) -> dict[str, str]:
    """Return the installed version of each package as `python` sees it."""
    code = "import sys, importlib.metadata as m; print('\\n'.join(m.version(name) for name in sys.argv[1:]))"
    path = os.pathsep.join([orjson_path(), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [python, "-c", code, *packages], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    return dict(zip(packages, done.stdout.split(), strict=True))


def _environment(name: str, packages: tuple[str, ...]) -> str:
    """Return the interpreter of an environment with these packages, made the first time."""
    folder = CACHE / name
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
        (folder / "done").touch()
    return str(python)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as problem:
        raise Unavailable(f"{command[0]} must run, got {problem.strerror}") from problem
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"{' '.join(command[1:4])} must succeed, got exit code {done.returncode}: {last}")
