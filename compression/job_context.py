"""The context of a job: what a step may use beside the workpiece and its own parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..schemas.errors import ModelUnsupported
from .cpu import Cpu
from .job import Job
from .job_data import JobData
from .track import Track
from .workpiece import Workpiece


@dataclass(frozen=True, slots=True)
class JobContext:
    """What a step may use: the rows, the champion and earlier versions (newest first, each once), CPU, seed, and the track."""

    data: JobData
    champion: Workpiece
    earlier: tuple[Workpiece, ...]
    cpu: Cpu
    seed: int
    track: Track

    def on(self, track: Track) -> JobContext:
        """Return the context of a part of the job."""
        return replace(self, track=track)

    def trainable(self, piece: Workpiece) -> Workpiece:
        """Return `piece`, or the newest earlier version where it is quantized, say, and cannot be trained; raises ModelUnsupported."""
        problem: ModelUnsupported | None = None
        for one in (piece, *self.earlier):
            try:
                one.trainable  # noqa: B018 - made here, or told why not
            except ModelUnsupported as refused:
                problem = problem or refused
                continue
            return one
        raise ModelUnsupported(f"model or an earlier version must be one that can be trained: {problem}")


def earlier_versions(job: Job) -> tuple[Workpiece, ...]:
    """Return the earlier versions, newest first, each digest once and none that is the champion's."""
    seen = {job.champion.digest}
    kept = []
    for version in sorted(job.earlier, key=lambda one: -one.version):
        if version.digest not in seen:
            seen.add(version.digest)
            kept.append(Workpiece(version.onnx, job.signature, version=version.version))
    return tuple(kept)
