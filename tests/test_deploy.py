"""What is shipped for running elsewhere: the compose file and the local broker's versions agree, and hold no secret."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent


def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_every_long_running_service_has_a_health_check() -> None:
    services = compose()["services"]
    assert {"broker", "service", "worker"} <= set(services)
    for name in ("broker", "service", "worker"):
        assert services[name]["healthcheck"]["test"], name


def test_the_compose_broker_is_the_version_of_the_local_one() -> None:
    version = re.search(r"<kafka>([\d.]+)</kafka>", (ROOT / "deploy/kafka/pom.xml").read_text("utf-8"))
    assert version is not None
    assert compose()["services"]["broker"]["image"] == f"apache/kafka:{version.group(1)}"


def test_the_compose_file_holds_no_secret_and_binds_loopback() -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8").lower()
    assert not re.search(r"(password|secret_key|token)\s*[:=]\s*\S", text)
    for service in compose()["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port


def test_every_dependency_is_pinned_in_the_constraints() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["worker"], *project["optional-dependencies"]["test"]]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text("utf-8").split()}
    names = {re.split(r"[<>=\[]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names <= pinned


def test_torch_is_no_plain_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert not [name for name in project["dependencies"] if name.startswith(("torch", "onnxscript"))]
    assert any(name.startswith("torch") for name in project["optional-dependencies"]["worker"])
