"""One attempt at a job: gather what it needs, run it in a child process, and turn the outcome into the events that publish or reject."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from ..compression.job import Job, ModelVersion, Outcome
from ..compression.job_folder import read_error, read_outcome, write_job
from ..compression.row_counts import check_enough
from ..compression.store import ArtifactStore
from ..compression.track import Progress
from ..schemas.errors import ArtifactInvalid, JobError, NotFound, StoreUnavailable, tells_of_disk
from ..schemas.events import (
    Event,
    JobFinished,
    JobProgressed,
    JobRequested,
    ModelPromoted,
    ModelProposed,
    ModelRegistered,
    ModelRejected,
)
from ..schemas.events import Outcome as End
from ..schemas.recipe_reading import recipe_asked
from ..settings import Settings
from .child_process import Ended
from .job_rows import read_rows
from .registry import Registry
from .transport import Transport
from .warm_child import Place, WarmChild

MAX_EARLIER = 16
OUTCOMES: dict[str, End] = {"auto": "promoted", "propose": "proposed", "never": "registered", "rejected": "rejected"}
POLL_S = 0.05
log = logging.getLogger("driftloop.worker")


class JobLost(Exception):
    """What ends an attempt whose job belongs to another worker, or whose worker is stopping; nothing may be told."""


@dataclass(frozen=True, slots=True)
class JobRun:
    """One attempt. `keep` returns False once the job is another's, `cancelled` True once it was taken back."""

    settings: Settings
    transport: Transport
    request: JobRequested
    keep: Callable[[], bool]
    cancelled: Callable[[], bool]
    tell: Callable[[Event], None]
    registry: Callable[[], Registry]
    child: WarmChild
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, began: float) -> list[Event]:
        """Return the events that end the job; raises JobError and other DriftloopErrors, JobLost, OSError of the temp directory."""
        request = self.request
        registry = self.registry()
        champion = registry.champion(request.model)
        if champion is None:
            raise JobError("error", f"model must have a champion to repair, got none called {request.model!r}")
        job = self._gather(registry, champion, began)
        with self.child.place() as place:
            write_job(place.folder, job, self.settings.repair)
            self._run_child(place)
            outcome = read_outcome(place.folder)
        return self._publish(outcome, champion, time.monotonic() - began)

    def _gather(self, registry: Registry, champion: ModelRegistered, began: float) -> Job:
        request = self.request
        recipe = recipe_asked(request, self.settings.recipes, take_whole=self.settings.worker.take_whole_recipes)
        store = ArtifactStore(self.settings.store.url)
        found = read_rows(self.transport, self.settings, request, champion.signature, lambda: self._still(began))
        if not len(found.rows):
            raise JobError("error", f"rows must be there, got none with a label that fits{_left_out(found.dropped)}")
        check_enough(len(found.rows), recipe, self.settings.repair)
        earlier, rejected = [], registry.challengers(request.model).rejected
        for version in registry.versions(request.model)[-MAX_EARLIER:]:
            if version.version == champion.version or version.signature != champion.signature or version.version in rejected:
                continue
            try:
                earlier.append(ModelVersion(version.version, version.digest, store.get(version.digest, version.size_bytes)))
            except (NotFound, ArtifactInvalid) as problem:
                log.warning("version %d of %s cannot be recalled: %s", version.version, request.model, problem)
        return Job(
            job_id=request.job_id,
            model=request.model,
            recipe=recipe,
            champion=ModelVersion(champion.version, champion.digest, store.get(champion.digest, champion.size_bytes)),
            signature=champion.signature,
            rows=found.rows,
            old_rows=found.old_rows,
            earlier=tuple(earlier),
            options=request.options,
            row_range=found.span,
        )

    def _still(self, began: float) -> None:
        """Raise JobLost or JobError where rows must be read no longer."""
        if self.stop.is_set() or not self.keep():
            raise JobLost
        if time.monotonic() - began > self.settings.worker.job_timeout_s:
            raise JobError("timeout", f"rows must be read within {self.settings.worker.job_timeout_s:g} s (worker.job_timeout_s)")

    def _run_child(self, place: Place) -> None:
        worker = self.settings.worker
        child = place.start()
        latest, told, beat = Progress(step="start", fraction=0.0), "", 0.0
        try:
            while (ended := child.wait(POLL_S)) is None:
                for line in child.take_lines():
                    newer = progress_of(line, latest)
                    if newer.step != latest.step and latest.scalars:
                        # The end of a curve, however short the step was.
                        self._beat(latest)
                    latest = newer
                if self.stop.is_set() or not self.keep():
                    raise JobLost
                now = time.monotonic()
                if latest.step != told or now - beat >= worker.heartbeat_s:
                    told, beat = latest.step, now
                    self._beat(latest)
        finally:
            child.stop()
        if ended.reason != "ok":
            problem = job_error(ended, read_error(place.folder), worker.job_timeout_s)
            raise StoreUnavailable(str(problem)) if tells_of_disk(str(problem)) else problem

    def _beat(self, line: Progress) -> None:
        if self.cancelled():
            raise JobError("cancelled", "job was taken back while it ran")
        fraction = min(1.0, max(0.0, line.fraction))
        request = self.request
        self.tell(
            JobProgressed(
                model=request.model,
                job_id=request.job_id,
                step=line.step[:200],
                fraction=fraction,
                message=line.message[:1000],
                scalars={name[:200]: value for name, value in line.scalars.items() if math.isfinite(value)},
                at=line.at,
            )
        )

    def _publish(self, outcome: Outcome, judged: ModelRegistered, duration_s: float) -> list[Event]:
        """Return registration and promotion, or rejection, and the end of the job; the artifact is in the store before."""
        request, verdict = self.request, outcome.verdict
        registry = self.registry()
        champion = registry.champion(request.model)
        reasons, promoted = verdict.reasons, verdict.promoted
        if promoted and (champion is None or (champion.version, champion.digest) != (judged.version, judged.digest)):
            now = "none" if champion is None else f"version {champion.version}"
            promoted, reasons = False, (f"champion must still be version {judged.version} it was judged against, got {now}",)
        told: list[Event] = []
        version, became = None, self.settings.policy.promotion(request.model) if promoted else "rejected"
        if promoted:
            serving = self._serving(outcome, registry, judged, told)
            version = serving.version
            if became == "auto":
                told.append(self._promotion(serving, judged, outcome))
            elif became == "propose":
                told.append(self._proposal(serving, judged, outcome))
        else:
            told.append(ModelRejected(model=request.model, reasons=reasons, job_id=request.job_id, verdict=verdict))
        told.append(
            JobFinished(
                model=request.model,
                job_id=request.job_id,
                recipe=request.recipe,
                outcome=OUTCOMES[became],
                reasons=reasons,
                duration_s=round(duration_s, 3),
                version=version,
                arm=outcome.arm,
                arms=outcome.arms,
                verdict=verdict,
                early_exit=outcome.early_exit,
            )
        )
        return told

    def _promotion(self, serving: ModelRegistered, judged: ModelRegistered, outcome: Outcome) -> ModelPromoted:
        return ModelPromoted(
            model=self.request.model,
            version=serving.version,
            digest=serving.digest,
            reason=f"{outcome.arm}: " + "; ".join(outcome.verdict.reasons),
            previous_version=judged.version,
            job_id=self.request.job_id,
            metric=outcome.verdict.candidate,
        )

    def _proposal(self, serving: ModelRegistered, judged: ModelRegistered, outcome: Outcome) -> ModelProposed:
        return ModelProposed(
            model=self.request.model,
            version=serving.version,
            digest=serving.digest,
            reason=f"{outcome.arm}: " + "; ".join(outcome.verdict.reasons),
            expires_at=time.time() + self.settings.policy.proposal_s,
            previous_version=judged.version,
            job_id=self.request.job_id,
            metric=outcome.verdict.candidate,
            verdict=outcome.verdict,
        )

    def _serving(self, outcome: Outcome, registry: Registry, judged: ModelRegistered, told: list[Event]) -> ModelRegistered:
        versions = registry.versions(self.request.model)
        if outcome.recalled_version is not None:
            for known in versions:
                if known.version == outcome.recalled_version:
                    return known
            raise JobError("error", f"recalled version must be registered, got {outcome.recalled_version}")
        if outcome.onnx is None or outcome.manifest is None:
            raise JobError("error", "a promoted outcome must hold a model and its manifest, got none")
        stored = ArtifactStore(self.settings.store.url).put(outcome.onnx, outcome.manifest)
        registered = ModelRegistered(
            model=self.request.model,
            version=registry.next_version(self.request.model),
            digest=stored.digest,
            uri=stored.uri,
            size_bytes=stored.size_bytes,
            signature=outcome.manifest.signature,
            parent_version=judged.version,
            job_id=self.request.job_id,
            metric=outcome.verdict.candidate,
            manifest_digest=stored.manifest_digest,
        )
        told.append(registered)
        return registered


def _left_out(dropped: dict[str, int]) -> str:
    """Return how many rows were left out and why."""
    return f" (left out: {', '.join(f'{count} {why}' for why, count in sorted(dropped.items()))})" if dropped else ""


def progress_of(line: bytes, latest: Progress) -> Progress:
    """Return what a line of a job's child says, `latest` where it is none of its own."""
    try:
        return msgspec.json.decode(line, type=Progress)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return latest


def job_error(ended: Ended, said: JobError | None, timeout_s: float) -> JobError:
    """Return why a job's child did not end well; `said` is what it wrote itself."""
    if ended.reason == "timeout":
        return JobError("timeout", f"job must end within {timeout_s:g} s, and was stopped")
    if said is not None:
        return said
    if ended.reason == "memory":
        return JobError("memory", f"job ran out of memory: {ended.tail[-500:]}")
    how = f"was ended by signal {-ended.code}" if ended.code < 0 else f"exited with {ended.code}"
    return JobError("crashed", f"job's process {how}: {ended.tail[-500:]}")
