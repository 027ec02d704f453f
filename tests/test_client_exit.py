"""Every end of a process that can be caught: workers of multiprocessing however they end, forks, gunicorn, SIGTERM. Counts are exact."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from driftloop.schemas.codecs import decode
from driftloop.schemas.events import PredictionMade
from driftloop.settings import Settings
from driftloop.streams.kafka import KafkaTransport

AWAY = "127.0.0.1:9"
WAIT_S = 120.0

WORKERS = """
import multiprocessing, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
import driftloop

client = driftloop.Client(config=driftloop.ClientConfig(exit_flush_s=20.0))

def work(who, events=50):
    for n in range(events):
        client.log_prediction("m", output=1, features={"a": 1.0}, prediction_id=f"{who}-{n}")

def in_a_thread(who):
    threading.Thread(target=lambda: (time.sleep(0.2), work(who))).start()

def until_ended(who, said):
    work(who)
    said.set()
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    work("program")
    processes = [context.Process(target=work, args=(f"process{n}",)) for n in range(2)]
    processes.append(context.Process(target=in_a_thread, args=("thread",)))
    [one.start() for one in processes], [one.join() for one in processes]
    with context.Pool(2) as pool:
        pool.map(work, [f"pool{n}" for n in range(10)], chunksize=1)
    pool = context.Pool(2, initializer=work, initargs=("initializer", 0), maxtasksperchild=2)
    pool.map(work, [f"short{n}" for n in range(5)], chunksize=1)
    pool.close(), pool.join()
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        list(executor.map(work, [f"executor{n}" for n in range(4)]))
    said = context.Event(), context.Event()
    ended, left = [context.Process(target=until_ended, args=(who, on), daemon=True) for who, on in zip(("ended", "left"), said)]
    ended.start(), left.start(), [on.wait() for on in said]
    ended.terminate(), ended.join()
    assert ended.exitcode == -15, ended.exitcode
"""
ALL = ["program", "process0", "process1", "thread", *(f"pool{n}" for n in range(10)), *(f"short{n}" for n in range(5))]
ALL += [*(f"executor{n}" for n in range(4)), "ended", "left"]


def arrived(settings: Settings) -> Counter[str]:
    """Return how often each prediction id is on the topic."""
    reader, ids = KafkaTransport(settings).reader([settings.topic("predictions")]), Counter[str]()
    while not reader.at_end():
        ids.update(decode(record.value, PredictionMade, "").prediction_id for record in reader.poll(1000, 0.2))
    reader.close()
    return ids


def run_file(program: str, folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    path = folder / "program.py"
    path.write_text(program, "utf-8")
    command = [sys.executable, str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, env=environment, cwd=folder, check=False)


@pytest.mark.kafka
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_all_events_of_workers_arrive_once(method: str, topics: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    done = run_file(WORKERS, tmp_path, environment, method)
    assert done.returncode == 0, done.stderr
    assert arrived(topics) == {f"{who}-{n}": 1 for who in ALL for n in range(50)}
    assert "not sent" not in done.stderr
    assert "dropped" not in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_workers_tell_what_they_could_not_send(tmp_path: Path) -> None:
    program = """
import logging, multiprocessing, driftloop
logging.getLogger("driftloop.kafka").setLevel(logging.CRITICAL)
client = driftloop.Client(config=driftloop.ClientConfig(exit_flush_s=0.1))
def work(events):
    for n in range(events): client.log_prediction("m", output=1)
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    process = context.Process(target=work, args=(30,))
    process.start(), process.join()
    with context.Pool(1) as pool: pool.map(work, [40])
"""
    done = run_file(program, tmp_path, {**os.environ, "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": AWAY})
    assert done.returncode == 0, done.stderr
    assert f"30 of 30 events were dropped and 0 failed ({AWAY})" in done.stderr
    assert f"40 of 40 events were not sent before the process was ended ({AWAY})" in done.stderr


SIGTERM = """
import os, signal, sys, driftloop
driftloop.Client(config=driftloop.ClientConfig(flush_on_sigterm=eval(sys.argv[1]), exit_flush_s=20.0))
{}
client = driftloop.Client(config=driftloop.ClientConfig(flush_on_sigterm=eval(sys.argv[1]), exit_flush_s=20.0))
for n in range(100): client.log_prediction("m", output=1, prediction_id=str(n))
os.kill(os.getpid(), signal.SIGTERM)
print("lives on")
"""


@pytest.mark.kafka
def test_sigterm_flushes_where_that_is_asked_for(topics: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    done = run_file(SIGTERM.format(""), tmp_path, environment, "True")
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, ""), done.stderr
    assert arrived(topics) == {str(n): 1 for n in range(100)}


@pytest.mark.kafka
def test_sigterm_of_a_program_with_a_handler_is_the_program_s(
    topics: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    own = "signal.signal(signal.SIGTERM, lambda number, frame: print('mine'))"
    done = run_file(SIGTERM.format(own), tmp_path, environment, "True")
    assert (done.returncode, done.stdout) == (0, "mine\nlives on\n"), done.stderr
    assert sum(arrived(topics).values()) == 100


def test_no_program_gets_a_handler_unasked(tmp_path: Path) -> None:
    asked = "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL); os._exit(0)"
    done = run_file(SIGTERM.format(asked), tmp_path, {**os.environ, "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": AWAY}, "None")
    assert done.stdout == "True\n", done.stderr


def test_a_flush_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    program = """
import threading, driftloop
make = lambda: driftloop.Client(config=driftloop.ClientConfig(flush_on_sigterm=True, exit_flush_s=0.1))
thread = threading.Thread(target=make)
thread.start(), thread.join()
"""
    done = run_file(program, tmp_path, {**os.environ, "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": AWAY})
    assert "flush_on_sigterm needs a client made in the main thread" in done.stderr


GUNICORN = """
import driftloop
client = driftloop.Client(config=driftloop.ClientConfig(exit_flush_s=20.0))
client.log_prediction("m", output=1, prediction_id="preload")
def app(environ, start_response):
    client.log_prediction("m", output=1, prediction_id=environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "0"), ("Connection", "close")])
    return []
"""


@pytest.mark.kafka
def test_all_events_of_preloaded_gunicorn_workers_arrive_once(
    topics: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "app.py").write_text(GUNICORN, "utf-8")
    path = str(tmp_path / "s")
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"unix:{path}", "--chdir", str(tmp_path)]
    with subprocess.Popen([*command, "app:app"], env=environment, stderr=subprocess.PIPE, text=True) as master:
        try:
            for n in range(60):
                request(path, f"/{n}")
        finally:
            master.terminate()
        _, told = master.communicate(timeout=WAIT_S)
    assert master.returncode == 0, told
    assert arrived(topics) == {"preload": 1} | {f"/{n}": 1 for n in range(60)}


def request(path: str, target: str) -> None:
    """Ask the server at a socket of the file system, once it is there."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as there:
                there.settimeout(WAIT_S)
                there.connect(path)
                there.sendall(f"GET {target} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
                assert there.recv(12) == b"HTTP/1.1 200"
                return
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < deadline, "server must listen, got none"
            time.sleep(0.05)
