"""The local broker: Apache Kafka in KRaft mode, one node, on loopback, for tests, demos and trying things out."""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from ..schemas.errors import BrokerUnavailable, Conflict
from .broker_libs import java, kafka_libs, user_dir
from .tied_process import tied

HOST = "127.0.0.1"
JVM_OPTIONS = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
STOP_TIMEOUT_S = 20.0
LOG_LINES = 12

SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={log_dir}
auto.create.topics.enable=false
num.partitions=4
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=200
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
message.max.bytes=2097152
log.cleaner.dedupe.buffer.size=33554432
log.cleaner.backoff.ms=500
num.network.threads=2
num.io.threads=2
background.threads=2
"""

LOG_PROPERTIES = """\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
"""


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Where the broker lives. `data_dir` None: under the user's state directory; `port` None or 0: the last one, else a free one.

    `kafka_home` is an unpacked Kafka; None: the jars that Maven brings. A `tied` broker dies with the process that starts it.
    """

    data_dir: Path | None = None
    port: int | None = None
    kafka_home: Path | None = None
    ready_timeout_s: float = 60.0
    tied: bool = False

    @property
    def folder(self) -> Path:
        """Return the data directory."""
        if self.data_dir is not None:
            return self.data_dir.expanduser().absolute()
        return user_dir("XDG_STATE_HOME", ".local/state") / "broker"


class BrokerAddress(NamedTuple):
    """The address of a broker that runs; `pid` and `data_dir` only where it is a local one."""

    bootstrap_servers: str
    pid: int | None = None
    data_dir: Path | None = None


class LocalBroker:
    """The one broker of a data directory, to be started, found and stopped from any process."""

    def __init__(self, config: BrokerConfig | None = None) -> None:
        self.config = BrokerConfig() if config is None else config
        self.folder = self.config.folder

    def start(self) -> BrokerAddress:
        """Return the broker's address once it answers, starting it unless it runs.

        Raises Conflict where Java, Maven or the port is missing, NotFound where `kafka_home` is no Kafka, BrokerUnavailable with the
        last lines of its log where it does not come up.
        """
        with self._locked():
            running = self.status()
            if running is not None:
                self._check_same_port(running)
                return running
            libs, jvm = kafka_libs(self.config.kafka_home), java()
            port = self._port()
            self._write_properties(port)
            command = [jvm, *JVM_OPTIONS, f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}", "-cp", f"{libs}/*"]
            self._format(command)
            command += ["kafka.Kafka", str(self.folder / "server.properties")]
            pid = _spawn(tied(command) if self.config.tied else command, self.log_file)
            started = psutil.Process(pid).create_time()
            state = {"pid": pid, "created": started, "port": port}
            self._state_file.write_text(json.dumps(state), "utf-8")
            address = BrokerAddress(f"{HOST}:{port}", pid, self.folder)
            try:
                self._wait_ready(address)
            except BaseException:
                self._end(pid)
                raise
            return address

    def status(self) -> BrokerAddress | None:
        """Return the address of the broker that runs on the data directory, or None."""
        state = self._state()
        process = _same_process(state.get("pid"), state.get("created"))
        return None if process is None else BrokerAddress(f"{HOST}:{state['port']}", process.pid, self.folder)

    def stop(self) -> bool:
        """Stop the broker and wait until it is gone; return False if none ran. The data stays."""
        address = self.status()
        if address is None or address.pid is None:
            return False
        self._end(address.pid)
        return True

    @property
    def log_file(self) -> Path:
        """Return the file that the broker's output goes to."""
        return self.folder / "broker.log"

    @property
    def _state_file(self) -> Path:
        return self.folder / "broker.json"

    def _state(self) -> dict[str, float]:
        try:
            state = json.loads(self._state_file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if "," in str(self.folder):
            raise Conflict(f"data directory must have no comma in its name, got {self.folder}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / "lock").open("w")
        except OSError as problem:
            raise Conflict(f"data directory must be writable, got {problem.strerror} ({self.folder})") from problem
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _check_same_port(self, running: BrokerAddress) -> None:
        wanted = self.config.port
        if wanted and running.bootstrap_servers != f"{HOST}:{wanted}":
            raise Conflict(f"port must be that of the broker that runs, {running.bootstrap_servers}, got {wanted} (stop it first)")

    def _port(self) -> int:
        if self.config.port:
            if not _is_free(self.config.port):
                raise Conflict(f"port must be free, got {self.config.port}, which another program listens on (broker start --port)")
            return self.config.port
        last = int(self._state().get("port", 0))
        return last if last and _is_free(last) else _free_port()

    def _write_properties(self, port: int) -> None:
        log_dir = str(self.folder / "data").replace("\\", "\\\\")
        text = SERVER_PROPERTIES.format(host=HOST, port=port, controller_port=_free_port(), log_dir=log_dir)
        (self.folder / "server.properties").write_text(text, "utf-8")
        (self.folder / "log4j2.properties").write_text(LOG_PROPERTIES, "utf-8")

    def _format(self, command: list[str]) -> None:
        if (self.folder / "data" / "meta.properties").exists():
            return
        # A leading minus would be read as an option.
        cluster = "-"
        while cluster.startswith("-"):
            cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        order = [*command, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self.folder / "server.properties")]
        done = subprocess.run(order, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BrokerUnavailable(
                f"broker's data directory must be formatted, got exit code {done.returncode}:\n{done.stdout}{done.stderr}"
            )

    def _wait_ready(self, address: BrokerAddress) -> None:
        deadline = time.monotonic() + self.config.ready_timeout_s
        host, _, port = address.bootstrap_servers.partition(":")
        while time.monotonic() < deadline:
            if _same_process(address.pid, self._state().get("created")) is None:
                raise BrokerUnavailable(f"broker must stay up, got an exit at start ({self.log_file}):\n{self._tail()}")
            with suppress(OSError), socket.create_connection((host, int(port)), timeout=1.0):
                if answers(address.bootstrap_servers, 1.0):
                    return
            time.sleep(0.05)
        wanted = self.config.ready_timeout_s
        raise BrokerUnavailable(f"broker must answer within {wanted:g} s, got no answer ({self.log_file}):\n{self._tail()}")

    def _tail(self) -> str:
        with suppress(OSError):
            return "\n".join(self.log_file.read_text("utf-8", "replace").splitlines()[-LOG_LINES:])
        return "(no log)"

    def _end(self, pid: int) -> None:
        process = _same_process(pid, self._state().get("created"))
        if process is None:
            return
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT_S)


def answers(bootstrap_servers: str, timeout_s: float) -> bool:
    """Return True if a broker without credentials answers in time."""
    quiet = logging.getLogger("driftloop.broker.probe")
    quiet.setLevel(logging.CRITICAL)
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0}, logger=quiet)
    try:
        return bool(admin.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


def _spawn(command: list[str], log_file: Path) -> int:
    # posix_spawn in a session of its own: the broker outlives this process and takes no Ctrl-C, and no object here waits for it.
    out = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log_file), out, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(command[0], command, os.environ, file_actions=actions, setsid=True)


def _same_process(pid: float | None, created: float | None) -> psutil.Process | None:
    # A pid alone may belong to another program by now.
    if pid is None or created is None:
        return None
    try:
        process = psutil.Process(int(pid))
        alive = process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - created) < 1.0
    except psutil.Error:
        return None
    return process if alive else None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
