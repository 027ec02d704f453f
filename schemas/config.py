"""Every setting of every room, frozen, with its default and the reason for it. `settings.py` reads them from TOML and environment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .redaction import shown_url

AUTO_SLOT = "auto"
SLOT: str = Field(
    AUTO_SLOT,
    pattern=r"^[A-Za-z0-9._-]{1,100}$",
    description="of the role in its group, across restarts; one process each. auto: from the host, and the first number free on it",
)


class Section(BaseModel):
    """The base of every settings section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Shapes:
    """The mark of a setting that saved numbers of these lanes depend on: where it changed, they warm up anew."""

    lanes: tuple[str, ...] = ("inputs", "output", "error")


class TopicsConfig(Section):
    """Names and sizes of the topics."""

    prefix: str = Field("driftloop.", pattern=r"^[A-Za-z0-9._-]*$", max_length=100)
    partitions: int = Field(4, ge=1, le=1000, description="of every topic; a model lives in one partition")
    replication_factor: int = Field(1, ge=1, le=10)
    retention_ms: int = Field(7 * 24 * 3600 * 1000, ge=60_000)


class MonitorConfig(Section):
    """Rules of what is admitted, how it is joined, and when a signal has drifted. Rows are counted per model."""

    max_value_bytes: int = Field(1_000_000, ge=100)
    max_features: int = Field(2_000, ge=1, description="of one model")
    max_feature_name_bytes: int = Field(512, ge=1, description="of one name")
    max_models: int = Field(
        5_000,
        ge=1,
        description="of a partition; unregistered ones that were barely seen or are idle give way, registered ones never",
    )
    max_total_features: int = Field(50_000, ge=1, description="of all models of a partition, each about 10 kB")
    max_total_classes: int = Field(20_000, ge=1, description="with scores, of all models of a partition, at most 64 of one")
    max_total_outputs: int = Field(
        200_000,
        ge=1,
        description="different outputs, and as many labels, that unregistered models of a partition are known to have",
    )
    model_idle_s: float = Field(24 * 3600.0, gt=0, description="an unregistered model unseen for this long gives way to new ones")
    max_future_s: float = Field(300.0, gt=0, description="an event time this far after its record's time stamp is refused")
    join_window_s: float = Field(7 * 24 * 3600.0, gt=0, description="how long a prediction waits for its label")
    early_label_s: float = Field(3600.0, gt=0, description="how long a label waits for its prediction")
    max_pending: int = Field(2_000_000, ge=1_000, description="predictions remembered per partition; the oldest give way")
    max_pending_bytes: int = Field(
        768 * 1024 * 1024, ge=1024 * 1024, description="as if every row had the widest scores, 64 of them"
    )
    max_early_labels: int = Field(100_000, ge=100, description="labels that wait for their prediction; the oldest give way")
    max_early_bytes: int = Field(128 * 1024 * 1024, ge=1024 * 1024, description="of their records, which are kept as they came")
    warm_up_rows: Annotated[int, Shapes()] = Field(
        500, ge=50, le=100_000, description="rows that make the frozen baseline of a signal"
    )
    error_block_rows: Annotated[int, Shapes(("error",))] = Field(
        16,
        ge=1,
        le=100_000,
        description="shortest block of the error signal; longer where rows correlate, as long as warm-up allows",
    )
    input_block_rows: Annotated[int, Shapes(("inputs", "output"))] = Field(
        64, ge=1, le=100_000, description="shortest block of all other signals"
    )
    max_block_rows: Annotated[int, Shapes()] = Field(
        1024, ge=1, le=100_000, description="one that is to be of use fits into the warm-up"
    )
    clip_sd: Annotated[float, Shapes()] = Field(8.0, ge=1, le=10_000, description="a standardised value beyond this counts as this")
    adwin_delta: float = Field(0.002, gt=0, lt=1, description="shared among the input signals of a model (Bonferroni)")
    page_hinkley_delta: float = Field(0.1, ge=0, le=1e6, description="in standard deviations of a block")
    page_hinkley_threshold: float = Field(20.0, gt=0, le=1e6, description="in standard deviations of a block")
    min_effect: float = Field(0.2, ge=0, description="an alarm with a smaller effect (sd of a row) opens no episode")
    medium_effect: float = Field(0.5, gt=0)
    high_effect: float = Field(1.0, gt=0)
    settle_rows: int = Field(4_000, ge=100, le=10**9, description="an episode closes after this many rows without another change")
    milestones: tuple[int, ...] = Field(
        (300, 2_000), description="labelled rows after the change at which an open episode is updated"
    )
    idle_rows: int = Field(500, ge=1, le=10**9, description="a version unseen for this many rows of its model starts afresh")
    max_versions: int = Field(
        8, ge=1, le=1_000, description="of one model watched at once; one that is idle or barely seen gives way"
    )
    max_new_versions_per_minute: int = Field(
        10, ge=1, le=60_000, description="of one model, once all room is taken; a version named on the models topic always has room"
    )
    metrics_every_rows: int = Field(1_000, ge=10, le=10**9)


class DataPlaneConfig(Section):
    """Sizes of the batches and commits of the data plane."""

    group: str = Field("monitor", min_length=1, max_length=100, description="of consumers, after the topic prefix")
    slot: str = SLOT
    batch_records: int = Field(10_000, ge=1, le=100_000)
    linger_s: float = Field(0.02, gt=0, lt=0.2, description="consume() waits this long unless a batch is full")
    commit_min_s: float = Field(0.1, gt=0)
    commit_max_s: float = Field(2.0, gt=0)
    commit_records: int = Field(250_000, ge=1)
    alert_commit_s: float = Field(0.05, ge=0, description="with a drift event to tell, commit at least this soon")
    session_timeout_s: float = Field(15.0, ge=1)
    max_poll_interval_s: float = Field(300.0, ge=1)
    transaction_timeout_s: float = Field(15.0, ge=1)
    fetch_memory_bytes: int = Field(256 * 1024 * 1024, ge=1024 * 1024, description="bound of librdkafka's fetch queue")
    on_bad_state: Literal["refuse", "rebuild"] = Field(
        "refuse", description="state that does not fit the offsets: stop, or read again from the earliest record (repeats outputs)"
    )


class ControlConfig(Section):
    """The name of the process that runs the control plane."""

    slot: str = SLOT


class ServiceConfig(Section):
    """How `driftloop serve` looks after itself: restarts of a role, and what counts as trouble."""

    max_restarts: int = Field(
        5, ge=0, description="of one role within restart_window_s; one more ends the service with its exit code"
    )
    restart_window_s: float = Field(600.0, gt=0)
    restart_min_s: float = Field(1.0, gt=0, description="wait before a role starts again, twice as long each time")
    restart_max_s: float = Field(30.0, gt=0)
    look_every_s: float = Field(5.0, gt=0, description="how often the watchdog, beside the control role, looks at the topics")
    stall_s: float = Field(60.0, gt=0, description="a partition that does not move for this long while records wait is a trouble")
    dead_letters_a_minute: int = Field(50, ge=1, description="of one disposition, and dead_letter_factor times what is usual")
    dead_letter_factor: float = Field(5.0, ge=1)
    silent_s: float = Field(
        900.0, gt=0, description="a model without predictions or metrics for this long, and silent_factor times its interval"
    )
    silent_factor: float = Field(10.0, ge=1)
    watched_models: int = Field(10_000, ge=1, description="for silence; the one longest silent gives way")


Promotion = Literal["auto", "propose", "never"]


class ModelPolicy(Section):
    """What the policy does otherwise for one model."""

    promote: Promotion


class PolicyConfig(Section):
    """When an episode starts a job, and who decides what its candidate becomes."""

    enabled: bool = True
    promote: Promotion = Field(
        "auto",
        description="of a candidate that the gate lets pass: it serves at once, a person is asked (driftloop model approve), or it is"
        " registered and nobody is asked",
    )
    proposal_s: float = Field(7 * 24 * 3600.0, gt=0, description="how long a proposed version waits for a person's word")
    models: dict[str, ModelPolicy] = Field(
        default_factory=dict, description="by name, what differs: [policy.models.<name>], as JSON in a variable"
    )
    recipe: str = Field("repair", min_length=1, max_length=100, description="one of schemas/recipes.py or of [recipes.<name>]")
    signals: tuple[str, ...] = ("error",)
    first_rows: int = Field(300, ge=20, description="labelled rows after the change that start the first job")
    second_rows: int = Field(2_000, ge=20, description="and one more while the episode is open")
    cool_down_rows: int = Field(200, ge=0, description="labelled rows that must lie between two jobs of one episode")
    max_jobs_per_episode: int = Field(2, ge=0)

    def promotion(self, model: str) -> Promotion:
        """Return who decides of a model's candidates."""
        return self.models[model].promote if model in self.models else self.promote

    @field_validator("models", mode="before")
    @classmethod
    def _read_models(cls, value: Any) -> Any:
        """Take the table as JSON, as a variable gives it (`DRIFTLOOP_POLICY__MODELS`)."""
        return json.loads(value) if isinstance(value, str) else value


class WorkerConfig(Section):
    """Bounds of the jobs."""

    group: str = Field("worker", min_length=1, max_length=100, description="of consumers, after the topic prefix")
    slot: str = SLOT
    job_timeout_s: float = Field(600.0, gt=0)
    job_memory_bytes: int = Field(8 * 1024**3, ge=256 * 1024**2, description="address space of the child process")
    warm_child: bool = Field(
        default=True, description="a process with torch imported waits for the next job, about 0.4 GB; off: each imports it anew"
    )
    heartbeat_s: float = Field(1.0, gt=0)
    max_attempts: int = Field(3, ge=1)
    max_queued: int = Field(
        8, ge=1, description="jobs of one model that wait, of the policy and of users each; what was asked for later fails at once"
    )
    max_put_off: int = Field(
        10,
        ge=0,
        description="times that a job is put off because store or disk are full, read-only or away; after them one of a user fails, "
        "one of the policy is an alert and is tried once an hour",
    )
    put_off_s: float = Field(10.0, gt=0, description="until it is tried again, doubled each time, at most 10 minutes")
    take_whole_recipes: bool = Field(
        default=True, description="that a request carries, with a gate of its own; off: only those of the worker's settings"
    )
    max_rows: int = Field(50_000, ge=100)
    max_row_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024 * 1024,
        description="of a job's rows and labels in the worker's own memory, where they take twice this at most; the oldest give way",
    )
    session_timeout_s: float = Field(15.0, ge=1)


class RepairConfig(Section):
    """How the rows of a job are cut, and its seed; steps and gate are the recipe's (`[recipes.<name>]`)."""

    seed: int = Field(0, ge=0, lt=2**63)
    max_old_rows: int = Field(2_000, ge=0, description="from before the change, the newest")
    holdout_share: float = Field(0.25, gt=0, lt=1, description="newest share of the rows that no arm is trained on")
    min_holdout_rows: int = Field(60, ge=10, description="at least so many are held out, and as many left to train on")


class StoreConfig(Section):
    """Where artifacts live: a directory, or any fsspec URL."""

    url: str = Field("./driftloop-artifacts", min_length=1, max_length=2_000, description="may hold a password: never shown whole")

    @property
    def shown(self) -> str:
        """Return the URL without what may be a secret."""
        return shown_url(self.url)

    def __repr_args__(self) -> Any:
        """Give pydantic the URL as it may be shown."""
        yield "url", self.shown


class ModelsConfig(Section):
    """Bounds of the trial of a foreign model: it is opened and run in a child process first."""

    max_bytes: int = Field(256 * 1024 * 1024, ge=1_000, le=1024 * 1024 * 1024, description="of a model file")
    trial_timeout_s: float = Field(30.0, gt=0)
    trial_memory_bytes: int = Field(3 * 1024**3, ge=512 * 1024**2, description="address space of the child process, of any file")
    trial_base_bytes: int = Field(
        1024**3,
        ge=512 * 1024**2,
        description="of it for a small file, and 8 times the file's size beside: 64 channels of 224 x 224 fit",
    )


class SigningConfig(Section):
    """Keys for model events: who has the private key can say which version serves; who knows public keys believes nobody else."""

    private_key_file: str = Field("", max_length=4_000, repr=False, description="Ed25519 as PEM; writers sign with it")
    public_keys: tuple[str, ...] = Field(
        (), max_length=100, description="in base64; readers ignore model events that none of them signed"
    )

    @field_validator("public_keys", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Take keys by commas, as a variable gives them."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> SigningConfig:
        if self.private_key_file and not self.public_keys:
            raise ValueError("must come with signing.public_keys, its own among them: who writes reads first (private_key_file)")
        return self
