"""The pulse: it asks only in silence, forgives a short outage, and tells a client that gets no more answers."""

from confluent_kafka import KafkaError, KafkaException

from driftloop.streams.pulse import ANSWER_S, PATIENCE_S, QUIET_S, Pulse


class Cluster:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.asked_at: list[float] = []
        self.answers = True

    def clock(self) -> float:
        return self.now_s

    def list_topics(self, topic: str | None, timeout: float) -> None:
        assert topic == "t"
        assert timeout == ANSWER_S
        self.asked_at.append(self.now_s)
        if not self.answers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))


def after(cluster: Cluster, pulse: Pulse, seconds: float) -> bool:
    cluster.now_s += seconds
    return pulse.is_lost()


def test_nothing_is_asked_while_something_comes() -> None:
    cluster = Cluster()
    pulse = Pulse(cluster, "t", cluster.clock)
    for _ in range(20):
        assert not after(cluster, pulse, QUIET_S * 0.9)
        pulse.beat()
    assert cluster.asked_at == []


def test_silence_is_asked_about_now_and_then() -> None:
    cluster = Cluster()
    pulse = Pulse(cluster, "t", cluster.clock)
    assert not any(after(cluster, pulse, 0.1) for _ in range(200))
    assert len(cluster.asked_at) == round(20 / QUIET_S) - 1 or len(cluster.asked_at) == round(20 / QUIET_S)


def test_a_short_outage_is_forgiven() -> None:
    cluster = Cluster()
    pulse = Pulse(cluster, "t", cluster.clock)
    for _ in range(3):
        cluster.answers = False
        assert not after(cluster, pulse, QUIET_S)
        assert not after(cluster, pulse, PATIENCE_S * 0.9)
        cluster.answers = True
        assert not after(cluster, pulse, ANSWER_S)


def test_silence_without_end_is_told() -> None:
    cluster = Cluster()
    cluster.answers = False
    pulse = Pulse(cluster, "t", cluster.clock)
    told = [after(cluster, pulse, 0.5) for _ in range(60)]
    assert told.index(True) * 0.5 in (QUIET_S + PATIENCE_S - 0.5, QUIET_S + PATIENCE_S)
    # It asks again at once in trouble, but not at every call.
    assert len(cluster.asked_at) <= 30


def test_what_comes_meanwhile_ends_the_silence() -> None:
    cluster = Cluster()
    cluster.answers = False
    pulse = Pulse(cluster, "t", cluster.clock)
    assert not after(cluster, pulse, QUIET_S)
    assert not after(cluster, pulse, PATIENCE_S * 0.9)
    pulse.beat()
    assert not after(cluster, pulse, QUIET_S)
    assert not after(cluster, pulse, PATIENCE_S * 0.9)
