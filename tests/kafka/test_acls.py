"""The table of rights on a broker that enforces it, with signed model events: each role does its work as a user of its own, and no more."""

import json
import re
import secrets
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, AdminClient, ResourcePatternType, ResourceType

from driftloop.schemas.config import SigningConfig, StoreConfig, TopicsConfig, WorkerConfig
from driftloop.schemas.errors import Conflict, DriftloopError
from driftloop.schemas.events import JobFailed, JobFinished
from driftloop.settings import Settings
from driftloop.streams.acls import ROLES, acl_lines
from driftloop.streams.broker import HOST, BrokerConfig, LocalBroker
from driftloop.streams.client import Client, ClientConfig, Counters
from driftloop.streams.data_plane import DataPlane
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.outgoing import outgoing
from driftloop.streams.registry import read_registry
from driftloop.streams.signing import make_key
from driftloop.streams.topics import ensure_topics
from driftloop.streams.troubles import Trouble, announce
from driftloop.streams.watchdog import Watchdog
from driftloop.streams.watcher import ModelWatcher
from driftloop.streams.worker import Worker
from driftloop.tests.data_plane_world import WAIT_S, running
from driftloop.tests.data_plane_world import read as read_plane
from driftloop.tests.kafka.test_control import control, opened
from driftloop.tests.worker_world import read, request, send, serve_a_champion, turn_the_concept

pytest.importorskip("cryptography")
pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ENFORCED = """
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller},NAMED://{host}:{named}
advertised.listeners=PLAINTEXT://{host}:{port},NAMED://{host}:{named}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,NAMED:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.named.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
WORDS = {"--topic": ResourceType.TOPIC, "--group": ResourceType.GROUP, "--transactional-id": ResourceType.TRANSACTIONAL_ID}


class EnforcingBroker(LocalBroker):
    """A local broker that knows a user for each role, and what each may do."""

    named = 0

    def _write_properties(self, port: int) -> None:
        super()._write_properties(port)
        path = self.folder / "server.properties"
        text = path.read_text("utf-8")
        controller = text.split(f"controller.quorum.voters=1@{HOST}:", 1)[1].split("\n", 1)[0]
        users = " ".join(f'user_driftloop-{role.name}="hush"' for role in ROLES)
        path.write_text(text + ENFORCED.format(host=HOST, port=port, controller=controller, named=self.named, users=users), "utf-8")


@pytest.fixture(scope="module")
def enforcing(local_kafka: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    broker = EnforcingBroker(BrokerConfig(data_dir=tmp_path_factory.mktemp("enforcing")))
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        broker.named = int(probe.getsockname()[1])
    try:
        yield broker.start().bootstrap_servers, f"{HOST}:{broker.named}"
    finally:
        broker.stop()


class Cast:
    """The settings of each role, as its own user, and those of a user who may do everything."""

    def __init__(self, addresses: tuple[str, str], folder: Path) -> None:
        signing = SigningConfig(public_keys=(make_key(folder / "key.pem"),), private_key_file=str(folder / "key.pem"))
        self.almighty = Settings(
            kafka={"bootstrap.servers": addresses[0]},
            topics=TopicsConfig(prefix=f"t{secrets.token_hex(4)}.", partitions=2),
            store=StoreConfig(url=str(folder / "store")),
            worker=WorkerConfig(session_timeout_s=6),
            signing=signing,
        )
        self._named = addresses[1]

    def __getitem__(self, role: str) -> Settings:
        sasl = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": f"driftloop-{role}"}
        return self.almighty.model_copy(update={"kafka": {"bootstrap.servers": self._named, "sasl.password": "hush", **sasl}})


@pytest.fixture
def cast(enforcing: tuple[str, str], tmp_path: Path) -> Cast:
    made = Cast(enforcing, tmp_path)
    admin = AdminClient(made.almighty.kafka)
    bindings = {binding for line in acl_lines(made.almighty) for binding in bindings_of(line)}
    for future in admin.create_acls(list(bindings)).values():
        future.result(WAIT_S)
    until(lambda: has_topics(made["operator"]))
    return made


def has_topics(settings: Settings) -> bool:
    """Make the topics; rights that were just granted may not hold yet."""
    with suppress(Conflict):
        ensure_topics(settings)
        return True
    return False


def bindings_of(line: str) -> list[AclBinding]:
    """Return what a printed command grants."""
    words = shlex.split(line, comments=True)
    if not words:
        return []
    said = [(words[at], words[at + 1]) for at in range(len(words) - 1)]
    (kind, name) = next((WORDS[word], value) for word, value in said if word in WORDS)
    pattern = ResourcePatternType.PREFIXED if ("--resource-pattern-type", "prefixed") in said else ResourcePatternType.LITERAL
    principal = dict(said)["--allow-principal"]
    names = {"Read": "READ", "Write": "WRITE", "Describe": "DESCRIBE", "DescribeConfigs": "DESCRIBE_CONFIGS", "Create": "CREATE"}
    operations = [AclOperation[names[value]] for word, value in said if word == "--operation"]
    return [AclBinding(kind, name, pattern, principal, "*", one, AclPermissionType.ALLOW) for one in operations]


def until(ask: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 3 * WAIT_S
    while not ask():
        assert time.monotonic() < deadline, "nothing came in time"
        time.sleep(0.05)


def test_each_role_does_its_work_with_its_own_rights(cast: Cast) -> None:
    everything = KafkaTransport(cast.almighty)
    serve_a_champion(cast["operator"], KafkaTransport(cast["operator"]))
    promoted = ModelWatcher("m", settings=cast["server"]).poll(WAIT_S)
    assert promoted is not None
    with running(DataPlane(cast["monitor"])) as failures:
        turn_the_concept(cast["app"], KafkaTransport(cast["app"]), rows=1_100)
        with Client(settings=cast["app"]) as client:
            client.log_prediction("m", version=1, output="yes", features={"a": 1.0, "b": 1.0})
            assert client.flush(WAIT_S) == 0
        until(lambda: bool(failures) or len(read_plane(cast.almighty, "metrics")) > 0)
    assert failures == []
    with control(cast["control"]):
        send(cast.almighty, everything, "drift", opened(400, "other"))
        until(lambda: len(read_plane(cast.almighty, "jobs")) > 0)
    send(cast["operator"], KafkaTransport(cast["operator"]), "jobs", request(cast.almighty))
    worker = Worker(cast["worker"], KafkaTransport(cast["worker"]))
    try:
        until(lambda: worker.step(1.0) and ended(cast, everything) >= {"j1"})
    finally:
        worker.close()
    champion = read_registry(everything, cast.almighty).champion("m")
    done = [event for event in read(cast.almighty, everything, "job-events") if isinstance(event, JobFinished)]
    assert champion is not None
    assert champion.version == (2 if done[-1].outcome == "promoted" else 1)
    assert read_registry(everything, cast.almighty).skipped == {}


def ended(cast: Cast, transport: KafkaTransport) -> set[str]:
    events = read(cast.almighty, transport, "job-events")
    return {event.job_id for event in events if isinstance(event, JobFinished | JobFailed)}


def test_every_role_of_the_service_tells_of_its_troubles_and_the_watchdog_looks(cast: Cast) -> None:
    for role in ("monitor", "control", "worker"):
        announce(cast[role], KafkaTransport(cast[role]), [Trouble(f"restarts-{role}-0", f"{role} failed")])
    told = [json.loads(record.value or b"")["alert_id"] for record in read_plane(cast.almighty, "alerts")]
    assert sorted(told) == [f"service-restarts-{role}-0" for role in ("control", "monitor", "worker")]
    Watchdog(cast["control"], KafkaTransport(cast["control"])).look(0.0)


@pytest.mark.parametrize(("role", "kind"), [("app", "models"), ("monitor", "models"), ("worker", "drift"), ("server", "models")])
def test_no_role_writes_what_is_not_its_own(cast: Cast, role: str, kind: str) -> None:
    sender = KafkaTransport(cast[role]).sender()

    def write() -> None:
        sender.send(outgoing(cast.almighty, opened(400))._replace(topic=cast.almighty.topic(kind)))
        assert sender.flush(WAIT_S) == 0

    with pytest.raises(DriftloopError, match=r"(?i)authori"):
        write()
    assert read_plane(cast.almighty, kind) == []


def test_the_sdk_of_a_user_who_may_write_nothing_counts_and_tells_why(cast: Cast) -> None:
    told: list[DriftloopError] = []
    # Who may read a topic learns where it lies: the refusal comes when the client asks for an id to write with.
    reader = AclBinding(
        ResourceType.TOPIC,
        cast.almighty.topic("predictions"),
        ResourcePatternType.LITERAL,
        "User:driftloop-server",
        "*",
        AclOperation.READ,
        AclPermissionType.ALLOW,
    )
    admin = AdminClient(cast.almighty.kafka)
    admin.create_acls([reader])[reader].result(WAIT_S)
    client = Client(settings=cast["server"], config=ClientConfig(on_error=told.append))
    for _ in range(50):
        client.log_prediction("m", version=1, output="yes", features={"a": 1.0})
        assert client.flush(WAIT_S) == 0
    client.close()
    assert client.counters == Counters(sent=50, acked=0, dropped=0, failed=50)
    assert all(re.search("(?i)authori", str(one)) for one in told)
