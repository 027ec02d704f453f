"""The whole service against a broker that asks for a password over TLS; the password is in no log."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from driftloop.schemas.config import StoreConfig, TopicsConfig
from driftloop.schemas.errors import BrokerUnavailable
from driftloop.settings import Settings
from driftloop.streams.broker import HOST, BrokerConfig, LocalBroker
from driftloop.streams.client import Client
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.topics import ensure_topics
from driftloop.tests.data_plane_world import WAIT_S, read, send

pytestmark = pytest.mark.kafka
USER = "driftloop"

SECURED = """
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller},SECURED://{host}:{secured}
advertised.listeners=PLAINTEXT://{host}:{port},SECURED://{host}:{secured}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL
sasl.enabled.mechanisms=PLAIN
listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.secured.ssl.keystore.type=PEM
listener.name.secured.ssl.keystore.location={keystore}
"""


@dataclass(frozen=True)
class Secured:
    address: str
    password: str
    certificate: Path

    def kafka(self, **changes: str) -> dict[str, str]:
        return {
            "bootstrap.servers": self.address,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": self.password,
            "ssl.ca.location": str(self.certificate),
            **changes,
        }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class SecuredBroker(LocalBroker):
    """Be a local broker with one more listener."""

    def secure(self, password: str, keystore: Path) -> int:
        self.password, self.keystore, self.secured = password, keystore, free_port()
        return self.secured

    def _write_properties(self, port: int) -> None:
        super()._write_properties(port)
        path = self.folder / "server.properties"
        text = path.read_text("utf-8")
        controller = text.split(f"controller.quorum.voters=1@{HOST}:", 1)[1].split("\n", 1)[0]
        named = {"host": HOST, "port": port, "controller": controller, "secured": self.secured}
        more = SECURED.format(**named, user=USER, password=self.password, keystore=self.keystore)
        path.write_text(text + more, "utf-8")


@pytest.fixture(scope="module")
def openssl(request: pytest.FixtureRequest) -> str:
    import shutil

    path = shutil.which("openssl")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("openssl must be on the path (apt install openssl)")
    return str(path)


@pytest.fixture(scope="module")
def secured(local_kafka: None, openssl: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    key, certificate, keystore = folder / "key.pem", folder / "certificate.pem", folder / "keystore.pem"
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=IP:{HOST}"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    keystore.write_text(key.read_text("ascii") + certificate.read_text("ascii"), "ascii")
    broker = SecuredBroker(BrokerConfig(data_dir=folder / "broker"))
    password = f"hush-{secrets.token_hex(8)}"
    port = broker.secure(password, keystore)
    try:
        broker.start()
        yield Secured(f"{HOST}:{port}", password, certificate)
    finally:
        broker.stop()


@pytest.fixture
def safe(secured: Secured, tmp_path: Path) -> Settings:
    settings = Settings(
        kafka=secured.kafka(),
        topics=TopicsConfig(prefix=f"t{secrets.token_hex(4)}.", partitions=2),
        store=StoreConfig(url=str(tmp_path / "store")),
    )
    ensure_topics(settings)
    return settings


def until(ask: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 2 * WAIT_S
    while not ask():
        assert time.monotonic() < deadline, log.read_text("utf-8")
        time.sleep(0.1)


def test_the_service_runs_over_tls_with_a_password_that_no_log_tells(safe: Settings, secured: Secured, tmp_path: Path) -> None:
    file, log = tmp_path / "driftloop.toml", tmp_path / "service.log"
    lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in safe.kafka.items() if name != "sasl.password"]
    more = [
        "[topics]",
        f'prefix = "{safe.topics.prefix}"',
        "partitions = 2",
        "replication_factor = 1",
        "[store]",
        f'url = "{safe.store.url}"',
    ]
    file.write_text("\n".join(["[kafka]", *lines, *more]), "utf-8")
    environment = {**os.environ, "DRIFTLOOP_KAFKA__SASL_PASSWORD": secured.password}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "driftloop", "serve"], env=environment, cwd=tmp_path, stdout=out, stderr=out
        )
    try:
        until(lambda: "ready: monitor, control, worker" in log.read_text("utf-8"), log)
        send(safe, 0, 1_500)
        send(safe, 1_500, 1_500, turned=True)
        until(lambda: len(read(safe, "metrics")) == 3, log)
        # The control plane has read the drift and told of it: Faust's own client got in as well.
        until(lambda: len(read(safe, "alerts")) == 1, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text("utf-8")
    finally:
        process.kill()
        process.wait()
    assert secured.password not in log.read_text("utf-8")


def test_the_sdk_logs_over_tls(safe: Settings) -> None:
    with Client(settings=safe) as client:
        client.log_label("m", client.log_prediction("m", version=1, output=1, features={"x": 1.0}), 1)
        assert client.flush(WAIT_S) == 0
        assert client.counters.acked == 2
    assert len(read(safe, "predictions", "labels")) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sasl.password": "hush-wrong"}, "Authentication"),
        ({"ssl.ca.location": ""}, "certificate verify failed"),
    ],
)
def test_a_wrong_password_and_an_unknown_certificate_are_told_without_the_password(
    secured: Secured, changes: dict[str, str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    kafka = {name: value for name, value in secured.kafka(**changes).items() if value}
    with pytest.raises(BrokerUnavailable) as told:
        KafkaTransport(Settings(kafka=kafka)).end_offsets("any")
    said = str(told.value) + caplog.text
    assert reason.lower() in said.lower()
    assert secured.password not in said
    assert "hush-wrong" not in said
