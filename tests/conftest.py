"""What many tests share: one real broker a session, and settings with topics of their own."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driftloop.schemas.config import DataPlaneConfig, StoreConfig, TopicsConfig, WorkerConfig
from driftloop.settings import Settings, load_settings
from driftloop.streams.broker import BrokerAddress, BrokerConfig, LocalBroker
from driftloop.streams.broker_libs import prerequisites

BOOTSTRAP_VARIABLES = ("DRIFTLOOP_TEST_BOOTSTRAP", "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS")
SHARED_MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 1024**3


def skip_or_fail(reason: str) -> None:
    """Skip with the reason, or fail where CI promises that nothing is missing."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def need_command() -> Callable[[str, str], str]:
    """Give a function from a system command and its Debian package to the command's path; it skips where there is none."""

    def find(command: str, package: str) -> str:
        path = shutil.which(command)
        if path is None:
            skip_or_fail(f"{command} must be on the path (apt install {package})")
        return str(path)

    return find


@pytest.fixture(scope="session")
def local_kafka() -> None:
    """Skip, or fail in CI, where no local broker can be run."""
    missing = prerequisites()
    if missing:
        skip_or_fail("; ".join(missing))


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[BrokerAddress]:
    """Give the address of the session's broker."""
    for variable in BOOTSTRAP_VARIABLES:
        if os.environ.get(variable):
            yield BrokerAddress(os.environ[variable])
            return
    request.getfixturevalue("local_kafka")
    roomy = SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK) and shutil.disk_usage(SHARED_MEMORY).free > ROOM_BYTES
    folder = Path(tempfile.mkdtemp(prefix="driftloop-broker-", dir=SHARED_MEMORY if roomy else None))
    local = LocalBroker(BrokerConfig(data_dir=folder))
    try:
        yield local.start()
    finally:
        local.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def settings(broker: BrokerAddress, tmp_path: Path) -> Settings:
    """Give settings with a topic prefix, and so groups, that no other test has."""
    kafka = {**load_settings(environment=os.environ).kafka, "bootstrap.servers": broker.bootstrap_servers}
    prefix = f"t{secrets.token_hex(4)}."
    return Settings(
        kafka=kafka,
        topics=TopicsConfig(prefix=prefix, partitions=2),
        data_plane=DataPlaneConfig(session_timeout_s=6, max_poll_interval_s=30, transaction_timeout_s=10),
        # Two CPUs for all tests: no test but its own waits for a process that imports torch and may never be used.
        worker=WorkerConfig(session_timeout_s=6, warm_child=False),
        store=StoreConfig(url=str(tmp_path / "store")),
    )


@pytest.fixture
def topics(settings: Settings) -> Iterator[Settings]:
    """Give the settings once all their topics are made; on a cluster of the user's they are deleted afterwards."""
    from driftloop.streams.topics import delete_topics, ensure_topics

    ensure_topics(settings)
    yield settings
    if any(os.environ.get(variable) for variable in BOOTSTRAP_VARIABLES):
        delete_topics(settings)


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """Give the environment in which another process reads the same settings."""
    variables = {f"DRIFTLOOP_KAFKA__{name.replace('.', '_').upper()}": value for name, value in settings.kafka.items()}
    for section in ("topics", "data_plane", "worker", "store"):
        part = getattr(settings, section)
        variables |= {f"DRIFTLOOP_{section}__{name}".upper(): str(getattr(part, name)) for name in part.model_fields_set}
    return {**os.environ, **variables}
