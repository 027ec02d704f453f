"""Who decides what a job's candidate becomes: policy.promote, for all models and for one."""

import json
from pathlib import Path

import pytest

from driftloop.schemas.config import PolicyConfig, StoreConfig
from driftloop.schemas.errors import SettingsInvalid
from driftloop.schemas.events import JobFinished, ModelPromoted, ModelProposed, ModelRegistered
from driftloop.settings import Settings, load_settings
from driftloop.streams.decisions import Decision, approve, reject
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.registry import read_registry
from driftloop.streams.worker import Worker
from driftloop.tests.worker_world import quick_repair, read, request, send, serve_a_champion, turn_the_concept

pytestmark = pytest.mark.slow


def world(tmp_path: Path, **policy: object) -> tuple[Settings, MemoryTransport]:
    settings = Settings(
        store=StoreConfig(url=str(tmp_path / "store")), recipes=quick_repair("finetune"), policy=PolicyConfig.model_validate(policy)
    )
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport)
    return settings, transport


def work(settings: Settings, transport: MemoryTransport, job: str = "j1") -> JobFinished:
    send(settings, transport, "jobs", request(settings, job))
    worker = Worker(settings, transport)
    assert worker.step()
    worker.close()
    finished = [event for event in read(settings, transport, "job-events") if isinstance(event, JobFinished)][-1]
    assert finished.verdict is not None
    assert finished.verdict.promoted, finished.reasons
    return finished


def champion(settings: Settings, transport: MemoryTransport) -> int:
    found = read_registry(transport, settings).champion("m")
    assert found is not None
    return found.version


def test_a_proposed_candidate_serves_once_a_person_approves(tmp_path: Path) -> None:
    settings, transport = world(tmp_path, promote="propose", proposal_s=500)
    finished = work(settings, transport)
    assert (finished.outcome, finished.version) == ("proposed", 2)
    assert champion(settings, transport) == 1
    registered, proposed = read(settings, transport, "models")[2:]
    assert isinstance(registered, ModelRegistered)
    assert isinstance(proposed, ModelProposed)
    assert (proposed.version, proposed.digest, proposed.previous_version, proposed.job_id) == (2, registered.digest, 1, "j1")
    assert proposed.verdict == finished.verdict
    approve(settings, transport, Decision("m", "ann", ""))
    assert champion(settings, transport) == 2


def test_what_a_person_rejected_is_not_recalled(tmp_path: Path) -> None:
    settings, transport = world(tmp_path, promote="propose")
    work(settings, transport)
    reject(settings, transport, Decision("m", "ann", "unfair"))
    recall = settings.model_copy(
        update={"recipes": {"repair": {"arms": {"recall": [{"type": "recall"}], **quick_repair("finetune")["repair"]["arms"]}}}}
    )
    recall = recall.model_copy(update={"recipes": {"repair": recall.recipes["repair"] | {"gate": {"max_latency_ratio": 100.0}}}})
    finished = work(recall, transport, "j2")
    assert (finished.arm, finished.version) == ("finetune", 3)


def test_never_registers_what_the_gate_lets_pass_and_asks_nobody(tmp_path: Path) -> None:
    settings, transport = world(tmp_path, promote="never")
    finished = work(settings, transport)
    assert (finished.outcome, finished.version) == ("registered", 2)
    assert champion(settings, transport) == 1
    assert [type(event) for event in read(settings, transport, "models")] == [ModelRegistered, ModelPromoted, ModelRegistered]


def test_one_model_may_have_a_rule_of_its_own(tmp_path: Path) -> None:
    settings, transport = world(tmp_path, promote="never", models={"m": {"promote": "auto"}})
    assert work(settings, transport).outcome == "promoted"
    assert champion(settings, transport) == 2


def test_the_rule_is_read_from_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "driftloop.toml"
    file.write_text('[policy]\npromote = "propose"\n[policy.models."fraud.eu"]\npromote = "never"\n')
    settings = load_settings(file, {})
    assert [settings.policy.promotion(model) for model in ("m", "fraud.eu")] == ["propose", "never"]
    variable = {"DRIFTLOOP_POLICY__MODELS": json.dumps({"m": {"promote": "propose"}})}
    assert load_settings(None, variable).policy.promotion("m") == "propose"


@pytest.mark.parametrize("value", ['{"m": {"promote": "maybe"}}', '{"m": "propose"}', "propose", '{"m": {}}'])
def test_a_wrong_rule_is_told(value: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"policy\.models"):
        load_settings(None, {"DRIFTLOOP_POLICY__MODELS": value})
