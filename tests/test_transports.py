"""One contract, two transports: what `streams/transport.py` promises, over memory and over the real broker."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from driftloop.schemas.errors import BrokerUnavailable, Conflict, NotFound
from driftloop.schemas.partitions import partition_of
from driftloop.schemas.records import Record
from driftloop.settings import Settings
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.transport import Outgoing, Reader, Transport, Work

WAIT_S = 60.0
TOPIC, OTHER, GROUP = "jobs", "job-events", "g"


@dataclass
class House:
    transport: Transport
    topic: str
    other: str
    group: str

    def send(self, *values: bytes | None, key: bytes = b"fraud", **more: Any) -> None:
        sender = self.transport.sender()
        for value in values:
            sender.send(Outgoing(self.topic, key, value, **more))
        assert sender.flush(WAIT_S) == 0
        sender.close()

    def work(self, slot: str = "0") -> Work:
        return self.transport.work(self.group, self.topic, slot)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    if request.param == "memory":
        yield House(MemoryTransport(partitions=2), TOPIC, OTHER, GROUP)
        return
    settings: Settings = request.getfixturevalue("topics")
    group = settings.topics.prefix + GROUP
    yield House(KafkaTransport(settings), settings.topic(TOPIC), settings.topic(OTHER), group)


def read_all(reader: Reader) -> list[Record]:
    found: list[Record] = []
    deadline = time.monotonic() + WAIT_S
    while not reader.at_end() and time.monotonic() < deadline:
        found += reader.poll(1000, 0.2)
    assert time.monotonic() < deadline, f"the end was not reached: {found[-3:]}"
    return found


def read_topic(house: House, topic: str) -> list[bytes | None]:
    reader = house.transport.reader([topic])
    values = [record.value for record in read_all(reader)]
    reader.close()
    return values


def take(work: Work) -> Record:
    found = eventually(lambda: work.take(0.5))
    assert found is not None
    return found


def eventually(ask: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
    return None


def key_for(partition: int) -> bytes:
    return next(key for key in (str(n).encode() for n in itertools.count()) if partition_of(key, 2) == partition)


def closing(*things: Any) -> None:
    for thing in things:
        thing.close()


def test_order_of_a_key_is_kept_and_its_partition_is_murmur2(house: House) -> None:
    sender = house.transport.sender()
    for n in range(300):
        sender.send(Outgoing(house.topic, f"model-{n % 7}".encode(), str(n).encode()))
    assert sender.flush(WAIT_S) == 0
    sender.close()
    reader = house.transport.reader([house.topic])
    records = read_all(reader)
    reader.close()
    assert len(records) == 300
    for key in {record.key for record in records}:
        assert key is not None
        mine = [record for record in records if record.key == key]
        assert [int(record.value or b"") for record in mine] == sorted(int(record.value or b"") for record in mine)
        assert {record.partition for record in mine} == {partition_of(key, 2)}
    for partition in (0, 1):
        offsets = [record.offset for record in records if record.partition == partition]
        assert offsets == list(range(len(offsets)))


def test_bytes_headers_and_nothing_come_back_unchanged(house: House) -> None:
    headers = (("content-type", b"application/json"), ("twice", b"1"), ("twice", b"\x00\xff"), ("empty", b""), ("none", None))
    house.send(None, b"", b"\x00\xff", headers=headers, timestamp_ms=1_700_000_000_123)
    reader = house.transport.reader([house.topic])
    records = read_all(reader)
    reader.close()
    assert [record.value for record in records] == [None, b"", b"\x00\xff"]
    assert all(record.headers == headers for record in records)
    assert all(record.timestamp_ms == 1_700_000_000_123 for record in records)


def test_a_record_without_time_stamp_gets_the_present(house: House) -> None:
    before = time.time()
    house.send(b"x")
    reader = house.transport.reader([house.topic])
    (record,) = read_all(reader)
    reader.close()
    assert before - 1 <= record.timestamp_ms / 1000 <= time.time() + 1
    assert record.headers == ()


def test_an_empty_topic_is_at_its_end(house: House) -> None:
    reader = house.transport.reader([house.topic, house.other])
    assert read_all(reader) == []
    assert reader.poll(10, 0.05) == []
    house.send(b"late")
    assert [record.value for record in read_all(reader)] == [b"late"]
    reader.close()


def test_poll_gives_at_most_the_limit_and_does_not_wait_for_it(house: House) -> None:
    house.send(*(str(n).encode() for n in range(10)))
    reader = house.transport.reader([house.topic])
    found = eventually(lambda: reader.poll(3, 1.0))
    assert len(found) <= 3
    rest = read_all(reader)
    assert [record.value for record in [*found, *rest]] == [str(n).encode() for n in range(10)]
    reader.close()


def test_start_positions(house: House) -> None:
    low, high = key_for(0), key_for(1)
    house.send(b"0", b"1", b"2", key=low)
    house.send(b"3", b"4", key=high)
    reader = house.transport.reader([house.topic], {(house.topic, 0): 2})
    assert sorted(record.value or b"" for record in read_all(reader)) == [b"2", b"3", b"4"]
    reader.close()
    latest = house.transport.reader([house.topic], "latest")
    house.send(b"5", key=low)
    assert [record.value for record in read_all(latest)] == [b"5"]
    latest.close()
    assert house.transport.end_offsets(house.topic) == {0: 4, 1: 2}


def test_a_group_has_the_members_that_work(house: House) -> None:
    assert house.transport.members(house.group) == 0
    house.send(b"a")
    work = house.work()
    take(work)
    assert house.transport.members(house.group) == 1
    work.close()
    assert eventually(lambda: house.transport.members(house.group) == 0)


def test_work_comes_again_until_finished(house: House) -> None:
    house.send(b"a", b"b")
    work = house.work()
    first = take(work)
    assert first.value == b"a"
    assert take(work) == first
    assert work.keep()
    assert house.transport.committed(house.group, house.topic) == {}
    assert work.finish(first, [])
    assert house.transport.committed(house.group, house.topic) == {first.partition: 1}
    second = take(work)
    assert second.value == b"b"
    work.close()
    again = house.work()
    assert take(again) == second
    assert again.finish(second, [])
    assert again.take(0.2) is None
    again.close()


def test_attempts_are_counted_across_restarts(house: House) -> None:
    house.send(b"a", b"b")
    counts = []
    for _ in range(2):
        work = house.work()
        record = take(work)
        counts += [work.attempt(record), work.attempt(record)]
        work.close()
    assert counts == [1, 2, 3, 4]
    work = house.work()
    record = take(work)
    assert record.value == b"a"
    assert work.finish(record, [])
    record = take(work)
    assert record.value == b"b"
    assert work.attempt(record) == 1
    work.close()


def test_outputs_and_offset_are_one_step(house: House) -> None:
    house.send(b"a")
    work = house.work()
    record = take(work)
    outputs = [Outgoing(house.other, f"k{n}".encode(), str(n).encode()) for n in range(20)]
    assert work.finish(record, outputs)
    assert sorted(read_topic(house, house.other), key=lambda value: int(value or b"")) == [str(n).encode() for n in range(20)]
    assert not work.finish(record, outputs)
    assert len(read_topic(house, house.other)) == 20
    work.close()


def test_what_lies_ahead_is_seen_and_finished_with_the_last_of_it(house: House) -> None:
    house.send(*(b"%d" % number for number in range(6)))
    work = house.work()
    front = take(work)
    ahead: list[Record] = []
    while len(ahead) < 5:
        ahead = work.ahead(100)
    assert [record.value for record in ahead] == [b"1", b"2", b"3", b"4", b"5"]
    assert work.ahead(2) == ahead[:2]
    assert take(work) == front
    assert work.finish(ahead[2], [Outgoing(house.other, b"k", b"out")])
    assert take(work).value == b"4"
    assert read_topic(house, house.other) == [b"out"]
    work.close()
    second = house.work()
    assert take(second).value == b"4"
    second.close()


def test_a_zombie_of_the_same_slot_is_fenced(house: House) -> None:
    house.send(b"a")
    zombie = house.work()
    record = take(zombie)
    successor = house.work()
    assert take(successor) == record
    assert not zombie.finish(record, [Outgoing(house.other, b"k", b"zombie")])
    assert not zombie.keep()
    with pytest.raises(Conflict, match="slot"):
        zombie.take(0.1)
    assert successor.finish(record, [Outgoing(house.other, b"k", b"successor")])
    assert read_topic(house, house.other) == [b"successor"]
    closing(zombie, successor)


def test_two_members_share_the_partitions_and_finish_each_record_once(house: House) -> None:
    keys = (key_for(0), key_for(1))
    for n in range(6):
        house.send(str(n).encode(), key=keys[n % 2])
    stop = threading.Event()
    failed: list[Exception] = []

    def run(slot: str) -> None:
        work = house.work(slot)
        try:
            while not stop.is_set():
                record = work.take(0.2)
                if record is None:
                    continue
                for _ in range(5):
                    work.keep()
                    time.sleep(0.02)
                work.finish(record, [Outgoing(house.other, record.key or b"", record.value)])
        except Exception as problem:  # noqa: BLE001 - shown by the assertion below
            failed.append(problem)
        finally:
            work.close()

    threads = [threading.Thread(target=run, args=(slot,)) for slot in ("0", "1")]
    for thread in threads:
        thread.start()
    done = eventually(
        lambda: house.transport.committed(house.group, house.topic).keys() == {0, 1} and len(read_topic(house, house.other)) == 6
    )
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert done
    assert sorted(value or b"" for value in read_topic(house, house.other)) == [str(n).encode() for n in range(6)]


def test_a_member_keeps_its_record_through_a_rebalance(house: House) -> None:
    keys = (key_for(0), key_for(1))
    house.send(b"a", key=keys[0])
    house.send(b"b", key=keys[1])
    first = house.work("0")
    record = take(first)
    joined: list[Work] = []
    thread = threading.Thread(target=lambda: joined.append(house.work("1")) or joined[0].take(5.0))
    thread.start()
    while thread.is_alive():
        first.keep()
        time.sleep(0.02)
    kept = first.keep()
    finished = first.finish(record, [Outgoing(house.other, b"k", b"first")])
    # By range, slot 0 keeps partition 0 and gives partition 1 away.
    assert kept == finished == (record.partition == 0)
    assert read_topic(house, house.other) == ([b"first"] if finished else [])
    closing(first, *joined)


@pytest.mark.kafka
def test_uncommitted_and_aborted_records_are_not_read_and_do_not_hide_the_end(topics: Settings) -> None:
    from confluent_kafka import Producer

    from driftloop.streams.client_settings import transactional_properties

    transport = KafkaTransport(topics)
    topic = topics.topic(OTHER)
    producer = Producer(transactional_properties(topics, topics.topics.prefix + "t", 10.0))
    producer.init_transactions(WAIT_S)

    def values() -> Sequence[bytes | None]:
        reader = transport.reader([topic])
        found = [record.value for record in read_all(reader)]
        reader.close()
        return found

    producer.begin_transaction()
    producer.produce(topic, b"open", b"k")
    producer.flush(WAIT_S)
    assert values() == []
    producer.abort_transaction(WAIT_S)
    assert values() == []
    producer.begin_transaction()
    producer.produce(topic, b"kept", b"k")
    producer.commit_transaction(WAIT_S)
    assert values() == [b"kept"]


@pytest.mark.kafka
def test_an_output_that_is_refused_ends_no_member(topics: Settings) -> None:
    transport = KafkaTransport(topics)
    here = House(transport, topics.topic(TOPIC), topics.topic(OTHER), topics.topics.prefix + GROUP)
    here.send(b"a")
    work = here.work()
    record = take(work)
    with pytest.raises(Conflict, match="outputs must be records"):
        work.finish(record, [Outgoing(here.other, b"k", b"x"), Outgoing(here.other, b"k", os.urandom(5_000_000))])
    assert work.finish(record, [Outgoing(here.other, b"k", b"small")])
    assert read_topic(here, here.other) == [b"small"]
    work.close()


@pytest.mark.kafka
def test_a_missing_topic_is_named(settings: Settings) -> None:
    with pytest.raises(NotFound, match="driftloop init"):
        KafkaTransport(settings).reader([settings.topic(TOPIC)])


def test_a_broker_that_is_away_is_told_by_flush() -> None:
    sender = KafkaTransport(Settings(kafka={"bootstrap.servers": "127.0.0.1:9", "message.timeout.ms": "300"})).sender()
    sender.send(Outgoing("t", b"k", b"v"))
    with pytest.raises(BrokerUnavailable, match="1 refused"):
        eventually(lambda: sender.flush(5.0))
    sender.close()


def test_the_memory_clock_is_moved_by_hand() -> None:
    now = [100.0]
    transport = MemoryTransport(partitions=1, clock=lambda: now[0])
    sender = transport.sender()
    for _ in range(2):
        sender.send(Outgoing("t", b"k", b"v"))
        now[0] += 5.0
    assert [record.timestamp_ms for record in transport.reader(["t"]).poll(10, 0.0)] == [100_000, 105_000]


def test_an_expired_memory_member_loses_its_record_and_may_come_back() -> None:
    transport = MemoryTransport(partitions=1)
    transport.sender().send(Outgoing("t", b"k", b"v"))
    first, second = transport.work("g", "t", "0"), transport.work("g", "t", "1")
    record = first.take(0.0)
    assert record is not None
    assert second.take(0.0) is None
    transport.expire("g", "t", "0")
    assert not first.keep()
    assert second.take(0.0) == record
    assert not first.finish(record, [Outgoing("out", b"k", b"zombie")])
    assert second.finish(record, [])
    assert transport.end_offsets("out") == {0: 0}
    assert first.take(0.0) is None
