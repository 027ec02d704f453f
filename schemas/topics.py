"""Topics: which there are, which events they carry, how they are kept."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from . import events

Cleanup = Literal["delete", "compact"]


class TopicKind(msgspec.Struct, frozen=True, kw_only=True):
    """One topic: its short name, the union of its events, its clean-up policy.

    `co_partitioned` topics share one partition count, because one model's records must meet in one partition.
    """

    name: str
    carries: object
    cleanup: Cleanup = "delete"
    retention_ms: int | None = None
    co_partitioned: bool = True


FOREVER_MS = -1

# models keeps every record for ever instead of compacting: its key is the model, so that compaction would drop all but the
# newest version, and the whole history is what rollback, recall and audits read. It grows by a few records a repair.
KINDS: dict[str, TopicKind] = {
    kind.name: kind
    for kind in (
        TopicKind(name="predictions", carries=events.PredictionMade),
        TopicKind(name="labels", carries=events.LabelArrived),
        TopicKind(name="resources", carries=events.ResourcesSampled),
        TopicKind(name="drift", carries=events.DriftEvent),
        TopicKind(name="metrics", carries=events.MetricsComputed),
        TopicKind(name="alerts", carries=events.AlertEvent),
        TopicKind(name="jobs", carries=events.JobCommand),
        TopicKind(name="job-events", carries=events.JobEvent),
        TopicKind(name="models", carries=events.ModelEvent, retention_ms=FOREVER_MS),
        TopicKind(name="state", carries=None, cleanup="compact"),
        TopicKind(name="predictions.dlq", carries=None),
        TopicKind(name="labels.dlq", carries=None),
        TopicKind(name="models.dlq", carries=None),
        TopicKind(name="jobs.dlq", carries=None),
    )
}

DATA_PLANE_INPUTS = ("models", "predictions", "labels")
"""Read by the data plane, in the order in which records with the same time stamp are taken."""


def _carried(kind: TopicKind) -> tuple[type[events.Event], ...]:
    """Return the event types of a topic; the inputs of one type are no union."""
    return () if kind.carries is None else get_args(kind.carries) or (kind.carries,)


KIND_OF: dict[type[events.Event], str] = {carried: kind.name for kind in KINDS.values() for carried in _carried(kind)}
"""The one topic of every event type, by its short name."""


def topic_of(event: events.Event) -> str:
    """Return the short name of the topic that carries this event; the only place that decides where an event goes."""
    return KIND_OF[type(event)]


def topic_name(prefix: str, kind: str) -> str:
    """Return the full name of the topic called `kind`, such as `driftloop.predictions`."""
    return prefix + KINDS[kind].name
