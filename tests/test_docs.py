"""ARCHITECTURE.md and the other documents: the file map is complete, files and topics they name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("schemas", "detectors", "compression", "streams")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
DOCUMENTS = ("ARCHITECTURE.md", "README.md", "CHANGELOG.md", "benchmarks/README.md")


def mapped(title: str) -> dict[str, str]:
    """Return the entries of the file map under a title."""
    file_map = ARCHITECTURE.partition("\n## File map\n")[2]
    section = file_map.partition(f"### {title}\n")[2].partition("\n### ")[0]
    return dict(re.findall(r"^- `([\w.]+)`: (.+)$", section, re.MULTILINE))


@pytest.mark.parametrize(("folder", "title"), [(".", "The root"), *((room, f"{room}/") for room in ROOMS)])
def test_the_file_map_names_every_file_and_no_other(folder: str, title: str) -> None:
    assert sorted(mapped(title)) == sorted(path.name for path in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_names_are_there(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    places = [".", *ROOMS, "tests", "benchmarks", "examples", "deploy"]
    for name in re.findall(r"`([\w/]+\.(?:py|toml|yml|md|sh))`", text):
        there = name == "driftloop.toml" or any((ROOT / place / name).is_file() for place in places)
        assert there, f"{document} names {name}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document: str) -> None:
    for target in re.findall(r"\[[^\]]*\]\(([^)#:]+)\)", (ROOT / document).read_text("utf-8")):
        assert ((ROOT / document).parent / target).is_file(), f"{document} links to {target}"
