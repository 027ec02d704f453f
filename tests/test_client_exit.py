"""Every end of a process that can be caught: workers of multiprocessing however they end, forks, gunicorn, SIGTERM. Counts are exact."""

import os
import re
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


UNSENT = """
import logging, multiprocessing, sys, time, driftloop
logging.getLogger("driftloop.kafka").setLevel(logging.CRITICAL)
client = driftloop.Client(config=driftloop.ClientConfig(exit_flush_s=0.1))
context = multiprocessing.get_context("fork")
said = context.Event()
def work(events):
    for n in range(events): client.log_prediction("m", output=1)
def until_ended(events):
    work(events)
    said.set()
    time.sleep(600)
def process_that_returns():
    process = context.Process(target=work, args=(30,))
    process.start(), process.join()
def process_that_is_ended():
    process = context.Process(target=until_ended, args=(30,))
    process.start(), said.wait(), process.terminate(), process.join()
def pool_that_is_closed():
    pool = context.Pool(1)
    pool.map(work, [30]), pool.close(), pool.join()
def pool_that_is_left_at_work():
    with context.Pool(1) as pool:
        pool.apply_async(until_ended, (30,))
        said.wait()
if __name__ == "__main__":
    globals()[sys.argv[1]]()
"""
DROPPED, ENDED = "dropped and 0 failed", "not sent before the process was ended"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("process_that_returns", DROPPED),
        ("process_that_is_ended", ENDED),
        # An idle worker of a pool that is left by `with` is ended by SIGTERM or by its own last task, whichever comes first.
        ("pool_that_is_closed", DROPPED),
        ("pool_that_is_left_at_work", ENDED),
    ],
)
def test_workers_tell_what_they_could_not_send(way: str, told: str, tmp_path: Path) -> None:
    done = run_file(UNSENT, tmp_path, {**os.environ, "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": AWAY}, way)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"30 of 30 events were ([^(]*) \(([^)]*)\)", done.stderr)
    assert lines == [(told, AWAY)], done.stderr


SIGTERM = """
import os, signal, sys, driftloop
set_before, set_after, asked, exit_flush_s = map(eval, sys.argv[1:])
own = lambda number, frame: print("mine")
if set_before: signal.signal(signal.SIGTERM, own)
client = driftloop.Client(config=driftloop.ClientConfig(flush_on_sigterm=asked, exit_flush_s=exit_flush_s))
if set_after: signal.signal(signal.SIGTERM, own)
again = driftloop.Client(config=driftloop.ClientConfig(flush_on_sigterm=asked, exit_flush_s=exit_flush_s))
for n in range(100): client.log_prediction("m", output=1, prediction_id=str(n))
os.kill(os.getpid(), signal.SIGTERM)
print("lives on")
"""


@pytest.mark.kafka
@pytest.mark.parametrize("asked", ["None", "True"])
def test_sigterm_ends_a_plain_script_with_all_events_sent(
    asked: str, topics: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    done = run_file(SIGTERM, tmp_path, environment, "0", "0", asked, "20.0")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "", "")
    assert arrived(topics) == {str(n): 1 for n in range(100)}


@pytest.mark.kafka
@pytest.mark.parametrize("place", [("1", "0"), ("0", "1")], ids=["before", "after"])
def test_sigterm_of_a_program_with_a_handler_is_the_program_s(
    place: tuple[str, str], topics: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    done = run_file(SIGTERM, tmp_path, environment, *place, "True", "20.0")
    assert (done.returncode, done.stdout) == (0, "mine\nlives on\n"), done.stderr
    assert sum(arrived(topics).values()) == 100


def test_what_sigterm_leaves_unsent_is_told(tmp_path: Path) -> None:
    done = run_file(SIGTERM, tmp_path, {**os.environ, "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": AWAY}, "0", "0", "None", "0.1")
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")
    assert f"100 of 100 events were not sent before the process was ended ({AWAY})" in done.stderr


def test_sigterm_can_be_left_alone(tmp_path: Path) -> None:
    done = run_file(SIGTERM, tmp_path, {**os.environ, "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": AWAY}, "0", "0", "False", "0.1")
    assert done.returncode == -signal.SIGTERM
    assert "not sent" not in done.stderr


HANDLERS = """
import ctypes, faulthandler, os, signal, sys, threading, driftloop
make = lambda: driftloop.Client(config=driftloop.ClientConfig(flush_on_sigterm=eval(sys.argv[2]), exit_flush_s=0.1))
ask = ctypes.pythonapi.PyOS_getsig
ask.restype = ctypes.c_void_p
if sys.argv[1] == "foreign": faulthandler.register(signal.SIGTERM, chain=True)
if sys.argv[1] == "ignored": signal.signal(signal.SIGTERM, signal.SIG_IGN)
before = ask(signal.SIGTERM), signal.getsignal(signal.SIGTERM)
if sys.argv[1] == "thread":
    thread = threading.Thread(target=make)
    thread.start(), thread.join()
else:
    make()
print("untouched" if (ask(signal.SIGTERM), signal.getsignal(signal.SIGTERM)) == before else "taken")
"""


@pytest.mark.parametrize("kind", ["foreign", "ignored", "thread"])
def test_sigterm_is_taken_from_nobody(kind: str, tmp_path: Path) -> None:
    done = run_file(HANDLERS, tmp_path, {**os.environ, "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": AWAY}, kind, "None")
    assert (done.stdout, "flush_on_sigterm" in done.stderr) == ("untouched\n", False), done.stderr


def test_a_flush_that_was_asked_for_and_cannot_be_had_is_told(tmp_path: Path) -> None:
    done = run_file(HANDLERS, tmp_path, {**os.environ, "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": AWAY}, "thread", "True")
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


ASLEEP = """
import multiprocessing, signal, sys, threading, time, driftloop
client = driftloop.Client("127.0.0.1:9", config=driftloop.ClientConfig(exit_flush_s=0.1))
context = multiprocessing.get_context(sys.argv[1])
def asleep(ready, never):
    # A signal that another thread takes interrupts no wait of the main one: as if it had come just before it.
    def send():
        ready.set()
        time.sleep(0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        time.sleep(600)
    threading.Thread(target=send, daemon=True).start()
    never.acquire()
if __name__ == "__main__":
    ready, never = context.Event(), context.Semaphore(0)
    process = context.Process(target=asleep, args=(ready, never))
    process.start(), ready.wait(), process.join()
    print(process.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_does_not_sleep_through_the_signal_that_ends_it(method: str, tmp_path: Path) -> None:
    done = run_file(ASLEEP, tmp_path, dict(os.environ), method)
    assert done.stdout == "-15\n", done.stderr


ENDING = """
import os, signal, time, driftloop
client, program = driftloop.Client("127.0.0.1:9"), os.getpid()
def leave(timeout_s):
    # Another thread of the program would fork here, while the handler sends what waits.
    if os.getpid() != program: return
    reading, writing = os.pipe()
    child = os.fork()
    if not child: os.write(writing, b"up")
    while not child: time.sleep(1)
    os.read(reading, 2)  # Python forgets the signals that come before a child is up
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
client.leave = leave
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(600)
"""


def test_a_child_forked_while_its_parent_ends_can_be_ended(tmp_path: Path) -> None:
    done = run_file(ENDING, tmp_path, dict(os.environ))
    assert (done.returncode, done.stdout) == (-15, "-15\n"), done.stderr
