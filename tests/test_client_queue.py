"""The queue of the SDK is bounded by records and by bytes, and tells which bound it is at."""

import logging
import os
import subprocess
import sys
from typing import Any

import pytest

from driftloop.schemas.errors import DriftloopError, SettingsInvalid
from driftloop.settings import Settings
from driftloop.streams.client import LEFT, Client, ClientConfig, Counters

AWAY = "127.0.0.1:9"
MIB = 1024 * 1024


def test_wide_rows_wait_within_the_bytes_given() -> None:
    names = [f"a_feature_with_a_long_name_{n}" for n in range(500)]
    row = dict.fromkeys(names, 0.5)
    client = Client(AWAY, settings=Settings(), config=ClientConfig(max_queued_bytes=MIB, exit_flush_s=0.1))
    for _ in range(300):
        client.log_prediction("m", output=1, features=row)
    waiting = client.flush(0.0)
    size_bytes = sum(map(len, names)) + len(names) * 5
    assert 0.8 * MIB < waiting * size_bytes <= 1.1 * MIB
    assert client.counters == Counters(sent=300, acked=0, dropped=300 - waiting, failed=0)
    assert client.reasons == {f"event must find room in the queue: {MIB} bytes wait already": 300 - waiting}
    client.close(0.1)
    assert client.counters == Counters(sent=300, acked=0, dropped=300, failed=0)
    assert client.reasons[LEFT] == waiting
    client.log_prediction("m", output=1)
    assert client.reasons["event must find room in the queue: the client is closed"] == 1
    assert sum(client.reasons.values()) == client.counters.dropped == 301


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_bounded_while_the_broker_is_away() -> None:
    program = f"""
import logging, driftloop
logging.disable()
def resident(): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) // 1024
client = driftloop.Client("{AWAY}", config=driftloop.ClientConfig(max_queued_bytes=16 * {MIB}, exit_flush_s=0.1))
row = {{f"a_feature_with_a_long_name_{{n}}": 0.5 for n in range(2000)}}
client.log_prediction("m", output=1, features=row)
before = resident()
for _ in range(3000): client.log_prediction("m", output=1, features=row)
print(resident() - before, client.counters.dropped)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    grown_mib, dropped = map(int, done.stdout.split())
    # All of the rows would be 200 MiB.
    assert grown_mib < 40
    assert dropped > 2000


def test_a_full_queue_says_by_which_bound(caplog: pytest.LogCaptureFixture) -> None:
    told: list[DriftloopError] = []
    config = ClientConfig(max_queued=10, max_queued_bytes=MIB, on_error=told.append, exit_flush_s=0.1)
    with Client(AWAY, settings=Settings(), config=config) as client, caplog.at_level(logging.WARNING, "driftloop.client"):
        for _ in range(25):
            client.log_prediction("m", output=1)
        assert client.reasons == {"event must find room in the queue: 10 events wait already": 15}
    assert len(told) == 15
    assert caplog.text.count("10 events wait already (127.0.0.1:9)") == 1
    assert "25 of 25 events were dropped" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_queued": 0},
        {"max_queued": -5},
        {"max_queued_bytes": 0},
        {"max_queued_bytes": 2**40},
        {"format": "msgpack"},
        {"exit_flush_s": -1.0},
        {"exit_flush_s": float("nan")},
    ],
)
def test_a_config_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsInvalid, match=f"{next(iter(wrong))} must be"):
        Client(AWAY, settings=Settings(), config=ClientConfig(**wrong))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_copies_no_client_that_is_about_to_connect() -> None:
    # Hooks run in turn, the first one last: this one sees what the fork copies. The broker is librdkafka's own, in this process.
    program = """
import os
copied = []
os.register_at_fork(before=lambda: copied.append(client.counters))
import driftloop
from driftloop.settings import Settings
from driftloop.streams import at_fork
at_fork.FORK_WAIT_S = 60.0
client = driftloop.Client(settings=Settings(kafka={"test.mock.num.brokers": "1"}))
for _ in range(100): client.log_prediction("m", output=1)
child = os.fork()
if not child: os._exit(0)
os.waitpid(child, 0)
print(*copied[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["100", "100", "0", "0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forks_wait_for_a_broker_that_is_away_once_only() -> None:
    program = f"""
import logging, os, driftloop
from driftloop.streams import at_fork
logging.disable()
at_fork.FORK_WAIT_S = 0.3
client = driftloop.Client("{AWAY}", config=driftloop.ClientConfig(exit_flush_s=0.1))
client.log_prediction("m", output=1)
for _ in range(3):
    child = os.fork()
    if not child: os._exit(0)
    os.waitpid(child, 0)
    print(client._queue._patience.left_s)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["0.0", "0.0", "0.0"]
