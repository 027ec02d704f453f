"""What the local broker needs from the machine: a JVM, and Apache Kafka's jars from Maven or from an unpacked Kafka."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..schemas.errors import Conflict, NotFound

KAFKA_VERSION = "4.3.1"
LIBS_VARIABLE = "DRIFTLOOP_KAFKA_LIBS"
MIN_JAVA = 17
GET_JAVA = "apt install openjdk-17-jdk-headless, brew install openjdk@17, or https://adoptium.net"
GET_MAVEN = "apt install maven, brew install maven, or https://maven.apache.org"

log = logging.getLogger("driftloop.broker")


def pom_file() -> Path:
    """Return the Maven file that names Kafka's artifacts; it lies at the same place in a wheel and in the repository."""
    return Path(__file__).resolve().parent.parent / "deploy" / "kafka" / "pom.xml"


def user_dir(variable: str, fallback: str) -> Path:
    """Return driftloop's folder under an XDG base directory."""
    base = os.environ.get(variable, "")
    return (Path(base) if base else Path.home() / fallback) / "driftloop"


def cached_libs() -> Path:
    """Return the folder that holds, or will hold, the jars brought by Maven."""
    return user_dir("XDG_CACHE_HOME", ".cache") / f"kafka-{KAFKA_VERSION}" / "libs"


def prerequisites(kafka_home: Path | None = None) -> list[str]:
    """Return one sentence for each thing missing to run a local broker, with how to get it."""
    missing = []
    problem = _java_problem()
    if problem:
        missing.append(problem)
    libs = _given_libs(kafka_home)
    if libs is not None and not _has_kafka(libs):
        missing.append(_no_jars(libs))
    if libs is None and not _has_kafka(cached_libs()) and shutil.which("mvn") is None:
        missing.append(
            f"Maven must be on the path to bring Apache Kafka {KAFKA_VERSION}, got none (get it: {GET_MAVEN}; "
            "or name an unpacked Kafka with --kafka-home)"
        )
    return missing


def java() -> str:
    """Return the path of the java command; raises Conflict where there is none new enough."""
    problem = _java_problem()
    if problem:
        raise Conflict(problem)
    return str(_java_path())


def kafka_libs(kafka_home: Path | None = None) -> Path:
    """Return a folder with Kafka's jars: of `kafka_home`, of $DRIFTLOOP_KAFKA_LIBS, or brought by Maven once.

    Raises NotFound where a named folder holds no Kafka, Conflict where Maven is missing or fails.
    """
    libs = _given_libs(kafka_home)
    if libs is not None:
        if not _has_kafka(libs):
            raise NotFound(_no_jars(libs))
        return libs
    libs = cached_libs()
    if not _has_kafka(libs):
        missing = prerequisites()
        if missing:
            raise Conflict("\n".join(missing))
        _bring(libs)
    return libs


def _given_libs(kafka_home: Path | None) -> Path | None:
    if kafka_home is not None:
        return kafka_home / "libs"
    named = os.environ.get(LIBS_VARIABLE, "")
    return Path(named) if named else None


def _has_kafka(libs: Path) -> bool:
    return any(libs.glob("kafka_2.*.jar")) and any(libs.glob("kafka-clients-*.jar"))


def _no_jars(libs: Path) -> str:
    return f"Kafka's jars must lie in {libs}, got no kafka_2.*.jar there (--kafka-home, ${LIBS_VARIABLE})"


def _java_path() -> Path | None:
    home = os.environ.get("JAVA_HOME", "")
    if home and (Path(home) / "bin" / "java").exists():
        return Path(home) / "bin" / "java"
    found = shutil.which("java")
    return Path(found) if found is not None else None


def _java_problem() -> str | None:
    path = _java_path()
    if path is None:
        return f"Java {MIN_JAVA} or newer must be on the path or in JAVA_HOME, got none (get it: {GET_JAVA})"
    try:
        done = subprocess.run([str(path), "-version"], capture_output=True, text=True, check=False)
    except OSError as problem:
        return f"Java must run, got {problem.strerror} ({path}; get it: {GET_JAVA})"
    said = re.search(r'version "(\d+)(?:\.(\d+))?', done.stderr + done.stdout)
    if said is None:
        return f"Java must tell its version, got exit code {done.returncode} ({path}; get it: {GET_JAVA})"
    # Java 8 calls itself 1.8.
    major = int(said[2]) if said[1] == "1" and said[2] is not None else int(said[1])
    if major < MIN_JAVA:
        return f"Java must be {MIN_JAVA} or newer, got {major} ({path}; get it: {GET_JAVA})"
    return None


def _bring(libs: Path) -> None:
    libs.parent.mkdir(parents=True, exist_ok=True)
    log.info("bringing Apache Kafka %s (43 MB) into %s", KAFKA_VERSION, libs)
    # A folder of its own, renamed at the end: a run cut short leaves no half-filled cache, and two at once do not mix.
    work = Path(tempfile.mkdtemp(prefix=".bring-", dir=libs.parent))
    try:
        shutil.copy(pom_file(), work / "pom.xml")
        order = ["mvn", "-q", "-B", "-f", str(work / "pom.xml"), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        done = subprocess.run([*order, f"-DoutputDirectory={work / 'libs'}"], capture_output=True, text=True, check=False)
        if done.returncode != 0 or not _has_kafka(work / "libs"):
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
            raise Conflict(f"Maven must bring Apache Kafka {KAFKA_VERSION}, got exit code {done.returncode}:\n{tail}")
        try:
            (work / "libs").rename(libs)
        except OSError:
            if not _has_kafka(libs):
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
