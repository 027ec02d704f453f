"""The events on driftloop's topics: frozen facts in the past tense.

Times are seconds since 1970 in UTC. A field is only ever added; unknown fields are ignored on reading. Topics that carry several
kinds of event tell them apart by the `type` field.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from .errors import EventInvalid
from .verdicts import ArmResult, EarlyExit, GateVerdict

MAX_VERSION = 2**31 - 1
Scalar = int | float | str | bool
FeatureValue = float | bool | str | None
Direction = Literal["worse", "better", "shifted"]
Severity = Literal["low", "medium", "high"]
Outcome = Literal["promoted", "rejected", "proposed", "registered"]
Task = Literal["classification", "regression"]
Cause = Literal["error", "timeout", "memory", "crashed", "cancelled"]


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of every event; `model` is also the record's key."""

    model: str


class PredictionMade(Event, frozen=True, kw_only=True, tag_field="type", tag="prediction_made"):
    """A prediction of `model` at `version`: `output` for `features`.

    `features`: name -> number, true or false (1 and 0), category or null; or a list in the order of the signature. `scores`: the
    chances of the classes, in the signature's order; a single one is that of the second of two. `ts` missing means the time stamp of
    the record.
    """

    version: int
    prediction_id: str
    output: Scalar
    features: dict[str, FeatureValue] | list[FeatureValue] = msgspec.field(default_factory=dict)
    ts: float | datetime | None = None
    scores: list[float] | None = None
    segment: str | None = None
    latency_ms: float | None = None


class LabelArrived(Event, frozen=True, kw_only=True, tag_field="type", tag="label_arrived"):
    """The right answer to a prediction; a null label takes back an earlier one."""

    prediction_id: str
    label: Scalar | None
    ts: float | datetime | None = None


class ResourcesSampled(Event, frozen=True, kw_only=True, tag_field="type", tag="resources_sampled"):
    """What a serving process used: shares of one core, bytes, milliseconds."""

    ts: float | datetime | None = None
    cpu_share: float | None = None
    memory_bytes: int | None = None
    latency_ms: float | None = None


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """The place of one record in the log, with its event time in seconds."""

    topic: str
    partition: int
    offset: int
    ts: float


class RowRange(msgspec.Struct, frozen=True, kw_only=True):
    """The rows to train on, by offsets of one partition; an `end` is exclusive, null means the newest row.

    Rows after the change are predictions in [start_offset, end_offset); their labels lie at or after `labels_start_offset`.
    Rows before the change, for arms that want them, begin at `reference_start_offset`, their labels at `reference_labels_offset`.
    """

    partition: int
    start_offset: int
    labels_start_offset: int
    end_offset: int | None = None
    reference_start_offset: int | None = None
    reference_labels_offset: int | None = None


class Implicated(msgspec.Struct, frozen=True, kw_only=True):
    """A feature or segment that moved with the drift; `effect` in standard deviations of the reference."""

    name: str
    effect: float


class DriftOpened(Event, frozen=True, kw_only=True, tag_field="type", tag="drift_opened"):
    """The start of an episode: `signal` of `model` changed at `change_point` and the record at `detected_at` tipped the detector.

    `effect` is (after - before) in standard deviations of the reference. `labelled_rows` counts labelled rows after the change so far.
    """

    episode_id: str
    version: int
    signal: str
    detector: str
    parameters: dict[str, float]
    direction: Direction
    severity: Severity
    before_mean: float
    after_mean: float
    effect: float
    change_point: Position
    detected_at: Position
    rows: RowRange
    labelled_rows: int
    implicated: tuple[Implicated, ...] = ()
    label_coverage: float | None = None


class DriftUpdated(Event, frozen=True, kw_only=True, tag_field="type", tag="drift_updated"):
    """News of an open episode: more labelled rows, or another severity. `rows` and `labelled_rows` are the newest."""

    episode_id: str
    version: int
    signal: str
    direction: Direction
    severity: Severity
    after_mean: float
    effect: float
    rows: RowRange
    labelled_rows: int
    updated_at: Position


class DriftClosed(Event, frozen=True, kw_only=True, tag_field="type", tag="drift_closed"):
    """The end of an episode. `reason`: settled (the new level is the baseline), recovered, or superseded by another change.

    `rows`: those since the change that led back, where there was one.
    """

    episode_id: str
    version: int
    signal: str
    reason: Literal["settled", "recovered", "superseded"]
    after_mean: float
    labelled_rows: int
    closed_at: Position
    rows: RowRange | None = None


class MetricsComputed(Event, frozen=True, kw_only=True, tag_field="type", tag="metrics_computed"):
    """A version's metrics over a window of joined rows and over its life.

    `label_coverage` is labelled / (labelled + still awaited or expired) of the predictions made; `window` and `total` map names
    such as accuracy, precision, recall, f1, log_loss, roc_auc, mae, rmse to values. `counts` of the model: `unfit_scores` of joined rows
    are no chances of the classes and were left out of log_loss and roc_auc, `contrary_scores` have the highest at another class than the
    output; where these or those are too many, neither metric is told.
    """

    version: int
    task: Task
    window: dict[str, float]
    total: dict[str, float]
    window_rows: int
    total_rows: int
    predictions: int
    label_coverage: float
    counts: dict[str, int]
    computed_at: Position


class AlertFired(Event, frozen=True, kw_only=True, tag_field="type", tag="alert_fired"):
    """A call for a person's attention; `alert_id` is the same however often it is sent, the newest one counts.

    `degraded_since`: event time in seconds of a change that has become the new level.
    """

    alert_id: str
    severity: Severity
    summary: str
    episode_id: str | None = None
    degraded_since: float | None = None


class AlertResolved(Event, frozen=True, kw_only=True, tag_field="type", tag="alert_resolved"):
    """The end of an alert: by recovery or a repair that restored the level (policy), or by a person (user)."""

    alert_id: str
    summary: str
    resolved_by: Literal["policy", "user"] = "policy"


class JobRequested(Event, frozen=True, kw_only=True, tag_field="type", tag="job_requested"):
    """A request for `recipe` to a worker; `job_id` is deterministic, so that asking twice is asking once.

    `rows` null means the newest labelled rows. `labelled_rows` is how many the requester knew of. `definition`: the whole recipe as
    plain data (arms, gate, exits); null means that of the name, as the worker knows it.
    """

    job_id: str
    recipe: str
    requested_by: Literal["policy", "user"]
    rows: RowRange | None = None
    episode_id: str | None = None
    labelled_rows: int = 0
    version: int | None = None
    options: dict[str, Scalar] = msgspec.field(default_factory=dict)
    definition: dict[str, Any] | None = None


class JobCancelled(Event, frozen=True, kw_only=True, tag_field="type", tag="job_cancelled"):
    """The end of a request that was taken back."""

    job_id: str


class JobStarted(Event, frozen=True, kw_only=True, tag_field="type", tag="job_started"):
    """The start of attempt number `attempt` (from 1) by a worker."""

    job_id: str
    recipe: str
    attempt: int
    worker: str


class JobProgressed(Event, frozen=True, kw_only=True, tag_field="type", tag="job_progressed"):
    """How far a job is; also its heartbeat. `fraction` in [0, 1].

    `scalars`: what is measured in the step at hand, such as loss, learning_rate and metric, at its iteration `at`.
    """

    job_id: str
    step: str
    fraction: float
    message: str = ""
    scalars: dict[str, float] = msgspec.field(default_factory=dict)
    at: int | None = None


class JobFinished(Event, frozen=True, kw_only=True, tag_field="type", tag="job_finished"):
    """The end of a job that was judged. `version` is the one that serves now if promoted.

    `proposed`: the candidate is the challenger, a person decides. `registered`: it is better, and nobody is asked (policy.promote).
    """

    job_id: str
    recipe: str
    outcome: Outcome
    reasons: tuple[str, ...]
    duration_s: float
    version: int | None = None
    arm: str | None = None
    arms: tuple[ArmResult, ...] = ()
    verdict: GateVerdict | None = None
    early_exit: EarlyExit | None = None


class JobFailed(Event, frozen=True, kw_only=True, tag_field="type", tag="job_failed"):
    """The end of a job that could not be judged."""

    job_id: str
    recipe: str
    cause: Cause
    message: str
    attempt: int
    duration_s: float


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes and gives: features in order, classes in order of the scores (empty for regression).

    The input is one matrix with a column for each feature. `categories`: features that are texts, each with those that the model knows;
    the column holds the place of the text in the list, -1 for any other.
    """

    task: Task
    features: tuple[str, ...]
    classes: tuple[Scalar, ...] = ()
    input_name: str = "features"
    output_name: str = "scores"
    categories: dict[str, tuple[str, ...]] = {}


def check_versions(**versions: int | None) -> None:
    """Raise EventInvalid for a version that no prediction could carry."""
    for name, version in versions.items():
        if version is not None and not 1 <= version <= MAX_VERSION:
            shown = version if version.bit_length() <= 64 else f"a number of {version.bit_length()} bits"
            raise EventInvalid("invalid", f"{name} must be 1 to {MAX_VERSION}, got {shown}")


class ModelRegistered(Event, frozen=True, kw_only=True, tag_field="type", tag="model_registered"):
    """An artifact in the store; it serves only once promoted. Digests are sha256 in hex, of the ONNX bytes and the manifest."""

    version: int
    digest: str
    uri: str
    size_bytes: int
    signature: Signature
    parent_version: int | None = None
    job_id: str | None = None
    metric: float | None = None
    manifest_digest: str | None = None

    def __post_init__(self) -> None:
        """Check the versions."""
        check_versions(version=self.version, parent_version=self.parent_version)


class ModelPromoted(Event, frozen=True, kw_only=True, tag_field="type", tag="model_promoted"):
    """The promotion of `version`: it is the champion now."""

    version: int
    digest: str
    reason: str
    previous_version: int | None = None
    job_id: str | None = None
    metric: float | None = None
    by: str | None = None

    def __post_init__(self) -> None:
        """Check the versions."""
        check_versions(version=self.version, previous_version=self.previous_version)


class ModelProposed(Event, frozen=True, kw_only=True, tag_field="type", tag="model_proposed"):
    """The proposal of `version`: it is the challenger of `previous_version` until a person decides, or `expires_at` (seconds)."""

    version: int
    digest: str
    reason: str
    expires_at: float
    previous_version: int | None = None
    job_id: str | None = None
    metric: float | None = None
    verdict: GateVerdict | None = None

    def __post_init__(self) -> None:
        """Check the versions."""
        check_versions(version=self.version, previous_version=self.previous_version)


class ModelRejected(Event, frozen=True, kw_only=True, tag_field="type", tag="model_rejected"):
    """The reasons why a candidate did not become the champion; a `version` that was proposed is the challenger no more."""

    reasons: tuple[str, ...]
    job_id: str | None = None
    verdict: GateVerdict | None = None
    version: int | None = None
    by: str | None = None

    def __post_init__(self) -> None:
        """Check the version."""
        check_versions(version=self.version)


class ModelRolledBack(Event, frozen=True, kw_only=True, tag_field="type", tag="model_rolled_back"):
    """The return of the earlier `version` as the champion, on a person's or a watch's word."""

    version: int
    digest: str
    from_version: int
    reason: str

    def __post_init__(self) -> None:
        """Check the versions."""
        check_versions(version=self.version, from_version=self.from_version)


DriftEvent = DriftOpened | DriftUpdated | DriftClosed
AlertEvent = AlertFired | AlertResolved
JobCommand = JobRequested | JobCancelled
JobEvent = JobStarted | JobProgressed | JobFinished | JobFailed
ModelEvent = ModelRegistered | ModelPromoted | ModelProposed | ModelRejected | ModelRolledBack
