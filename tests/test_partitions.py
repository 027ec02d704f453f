"""murmur2 gives the partitions that Java clients and librdkafka give."""

import pytest

from driftloop.schemas.partitions import murmur2, partition_of

# From org.apache.kafka.common.utils.UtilsTest.testMurmur2, as unsigned numbers.
JAVA = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "abc": 479470107, "": 275646681}


@pytest.mark.parametrize(("key", "expected"), JAVA.items())
def test_murmur2_agrees_with_java(key: str, expected: int) -> None:
    assert murmur2(key.encode()) == expected & 0xFFFFFFFF


def test_every_partition_is_reached_and_none_beyond() -> None:
    assert {partition_of(f"model-{number}".encode(), 7) for number in range(200)} == set(range(7))
