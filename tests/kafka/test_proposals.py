"""A proposed version on the real broker, with the whole service: approved, rejected, expired."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from driftloop.schemas.errors import Conflict
from driftloop.schemas.events import JobFinished
from driftloop.settings import Settings, load_settings
from driftloop.streams.alert_view import read_alerts
from driftloop.streams.decisions import Decision, approve, reject
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.registry import Registry, read_registry
from driftloop.tests.worker_world import read, request, send, serve_a_champion, turn_the_concept

pytestmark = pytest.mark.kafka

LOOSE = '{"gate": {"max_latency_ratio": 100}}'
ASKS = {"DRIFTLOOP_POLICY__PROMOTE": "propose", "DRIFTLOOP_RECIPES__REPAIR": LOOSE, "DRIFTLOOP_SERVICE__LOOK_EVERY_S": "0.2"}


@pytest.fixture
def service(environment: dict[str, str]) -> Iterator[Callable[..., None]]:
    """Give what starts the control and worker roles with more variables, in place of those that run."""
    running: list[subprocess.Popen[bytes]] = []

    def stop() -> None:
        while running:
            running[-1].send_signal(signal.SIGTERM)
            running.pop().wait(120)

    def start(**more: str) -> None:
        stop()
        command = [sys.executable, "-m", "driftloop", "serve", "--roles", "control,worker"]
        running.append(subprocess.Popen(command, env={**environment, **ASKS, **more}))

    try:
        yield start
    finally:
        stop()


def wait_for(what: Callable[[], bool], timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@dataclass
class World:
    """A champion whose concept turned, and the service that repairs it."""

    settings: Settings
    transport: KafkaTransport

    def propose(self, job: str) -> int:
        """Ask for a repair and return the version that it proposes."""
        send(self.settings, self.transport, "jobs", request(self.settings, job))
        wait_for(lambda: bool(self._ends(job)))
        (end,) = self._ends(job)
        assert end.outcome == "proposed", end.reasons
        assert end.version is not None
        return end.version

    def alert(self, job: str) -> str:
        """Return how the alert of a job's proposal stands."""
        found = read_alerts(self.transport, self.settings).get(f"proposal-{job}")
        return "none" if found is None else found.state

    def registry(self) -> Registry:
        """Return the registry as it is now."""
        return read_registry(self.transport, self.settings)

    def champion(self) -> int:
        """Return the version that serves."""
        found = self.registry().champion("m")
        assert found is not None
        return found.version

    def _ends(self, job: str) -> list[JobFinished]:
        told = read(self.settings, self.transport, "job-events")
        return [event for event in told if isinstance(event, JobFinished) and event.job_id == job]


def test_a_person_approves_rejects_and_lets_expire(
    topics: Settings, environment: dict[str, str], service: Callable[..., None]
) -> None:
    settings = load_settings(None, {**os.environ, **environment, **ASKS})
    world = World(settings, KafkaTransport(topics))
    serve_a_champion(topics, world.transport)
    turn_the_concept(topics, world.transport)
    service()
    first = world.propose("j1")
    wait_for(lambda: world.alert("j1") == "open")
    assert world.champion() == 1
    reject(settings, world.transport, Decision("m", "ann", "not yet"))
    wait_for(lambda: world.alert("j1") == "resolved")
    assert world.champion() == 1
    service(DRIFTLOOP_POLICY__PROPOSAL_S="8")
    second = world.propose("j2")
    wait_for(lambda: world.registry().challengers("m").waiting(time.time()) is None)
    # A machine on which nobody looked within its time has no alert of it.
    wait_for(lambda: world.alert("j2") in ("resolved", "none"))
    with pytest.raises(Conflict, match=f"version {second} waits no more: it expired"):
        approve(settings, world.transport, Decision("m", "ann", ""))
    assert world.champion() == 1
    service()
    third = world.propose("j3")
    wait_for(lambda: world.alert("j3") == "open")
    approve(settings, world.transport, Decision("m", "ann", ""))
    wait_for(lambda: world.alert("j3") == "resolved")
    assert first != third == world.champion()
