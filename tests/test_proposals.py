"""Proposals over the memory transport: who is asked, how it is decided, and that each is one alert which ends."""

import time
from collections.abc import Callable

import pytest

from driftloop.schemas.config import TopicsConfig
from driftloop.schemas.errors import Conflict, NotFound
from driftloop.schemas.events import AlertEvent, ModelPromoted, ModelProposed, ModelRegistered, Signature
from driftloop.settings import Settings
from driftloop.streams.alert_view import AlertView, read_alerts, resolve
from driftloop.streams.decisions import Decision, approve, reject
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.outgoing import publish
from driftloop.streams.proposals import Proposals
from driftloop.streams.registry import read_registry
from driftloop.streams.watchdog import Watchdog
from driftloop.streams.watching import read_events

SETTINGS = Settings(topics=TopicsConfig(prefix="t.", partitions=2))
SIGNATURE = Signature(task="regression", features=("a",))
ANN = Decision("m", "ann", "")
LATER = 1_000.0


@pytest.fixture
def transport() -> MemoryTransport:
    made = MemoryTransport(2)
    for version in (1, 2, 3):
        event = ModelRegistered(model="m", version=version, digest=f"d{version}", uri="u", size_bytes=1, signature=SIGNATURE)
        publish(SETTINGS, made, event)
    publish(SETTINGS, made, ModelPromoted(model="m", version=1, digest="d1", reason="first"))
    return made


def propose(transport: MemoryTransport, version: int, job: str) -> None:
    event = ModelProposed(
        model="m",
        version=version,
        digest=f"d{version}",
        reason="affine: better",
        expires_at=time.time() + LATER,
        previous_version=1,
        job_id=job,
    )
    publish(SETTINGS, transport, event)


def alerts(transport: MemoryTransport) -> dict[str, AlertView]:
    return read_alerts(transport, SETTINGS)


def test_a_proposal_is_one_alert_whoever_looks(transport: MemoryTransport) -> None:
    propose(transport, 2, "j1")
    for proposals in (Proposals(SETTINGS, transport), Proposals(SETTINGS, transport)):
        proposals.look(time.time())
        proposals.look(time.time())
        proposals.close()
        proposals.look(time.time())
    (alert,) = alerts(transport).values()
    assert (alert.alert_id, alert.state, alert.severity) == ("proposal-j1", "open", "medium")
    assert "m: version 2 is proposed until" in alert.summary
    assert "affine: better; driftloop model approve m 2, or reject" in alert.summary
    assert len(list(read_events(transport, ["t.alerts"], AlertEvent))) == 1


@pytest.mark.parametrize(
    ("decide", "serves", "said"),
    [(approve, 2, "approved by ann"), (reject, 1, "rejected by ann: rejected by hand")],
)
def test_a_person_decides(transport: MemoryTransport, decide: Callable[..., object], serves: int, said: str) -> None:
    propose(transport, 2, "j1")
    proposals = Proposals(SETTINGS, transport)
    proposals.look(time.time())
    decide(SETTINGS, transport, ANN)
    proposals.look(time.time())
    alert = alerts(transport)["proposal-j1"]
    assert (alert.state, alert.resolved_by) == ("resolved", "user")
    assert said in alert.summary
    champion = read_registry(transport, SETTINGS).champion("m")
    assert champion is not None
    assert champion.version == serves
    assert getattr(read_registry(transport, SETTINGS).history("m")[-1], "by", None) == "ann"
    with pytest.raises(Conflict, match=f"got none, version 2 waits no more: it was {said}"):
        decide(SETTINGS, transport, ANN)


def test_the_watchdog_looks_at_proposals_too(transport: MemoryTransport) -> None:
    propose(transport, 2, "j1")
    Watchdog(SETTINGS, transport).look(time.time())
    assert alerts(transport)["proposal-j1"].state == "open"


def test_a_proposal_expires(transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    propose(transport, 2, "j1")
    proposals = Proposals(SETTINGS, transport)
    proposals.look(time.time())
    now_s = time.time() + LATER
    proposals.look(now_s)
    alert = alerts(transport)["proposal-j1"]
    assert (alert.state, alert.resolved_by) == ("resolved", "policy")
    assert alert.summary == "m: version 2 waits no more: it expired, nobody decided"
    monkeypatch.setattr("driftloop.streams.decisions.time.time", lambda: now_s)
    with pytest.raises(Conflict, match="got none, version 2 waits no more: it expired"):
        approve(SETTINGS, transport, ANN)


def test_a_newer_proposal_takes_the_place_of_the_one_before(transport: MemoryTransport) -> None:
    proposals = Proposals(SETTINGS, transport)
    propose(transport, 2, "j1")
    proposals.look(time.time())
    propose(transport, 3, "j2")
    propose(transport, 3, "j3")
    proposals.look(time.time())
    assert {name: alert.state for name, alert in alerts(transport).items()} == {"proposal-j1": "resolved", "proposal-j3": "open"}
    with pytest.raises(Conflict, match="model must have version 2 proposed, got version 3"):
        approve(SETTINGS, transport, Decision("m", "ann", "", 2))
    assert approve(SETTINGS, transport, Decision("m", "ann", "looked at it", 3)).reason == "looked at it (affine: better)"


def test_an_alert_that_a_person_ended_is_not_told_again(transport: MemoryTransport) -> None:
    propose(transport, 2, "j1")
    proposals = Proposals(SETTINGS, transport)
    proposals.look(time.time())
    resolve(transport, SETTINGS, "proposal-j1", "seen")
    for again in (proposals, Proposals(SETTINGS, transport)):
        again.look(time.time())
    assert alerts(transport)["proposal-j1"].state == "resolved"
    assert approve(SETTINGS, transport, ANN).version == 2, "it waits all the same"


def test_what_is_not_there_is_told(transport: MemoryTransport) -> None:
    with pytest.raises(NotFound, match="model must be registered, got 'other'"):
        approve(SETTINGS, transport, Decision("other", "ann", ""))
    with pytest.raises(Conflict, match=r"model must have a proposed version, got none \(m; driftloop model promote needs no"):
        reject(SETTINGS, transport, ANN)
