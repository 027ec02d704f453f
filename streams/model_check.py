"""The check of a model file: served, watched, repaired, trained, compressed: each yes or no with its reason and what to do about it.

The file is opened in children alone: `python -m driftloop.streams.model_check FOLDER` tries the steps, under the limits of a job.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..compression.seen import Adopted, OutputSeen
from ..schemas.errors import ArtifactInvalid, DriftloopError, ModelUnsupported
from ..schemas.events import Scalar, Signature
from ..settings import Settings
from .child_process import ChildProcess, Limits
from .model_trial import tried
from .publishing import adopt_model, adopted_signature, score_notes

MODULE = "driftloop.streams.model_check"
MODEL, SIGNATURE, FOUND = "model.onnx", "signature.json", "abilities.json"
REPAIRS = ("affine", "correct", "refit", "finetune")
COMPRESSIONS = ("quantize", "prune")
CURES = {
    "served": "export it anew as the reason says; what no operator of the list does belongs before or behind the model",
    "repaired": "recall of an earlier version takes any model; or train it anew elsewhere and register the next version",
    "trained": "nothing is needed: repairs go on with the steps that take it; a network of dense or convolution layers can be trained",
    "compressed": "nothing is needed: trees and linear models are small; a network of Gemm, MatMul or Conv can be quantized",
}


class Checked(msgspec.Struct, frozen=True):
    """One thing that can be done with a model, or not: why, and the cure."""

    what: str
    able: bool
    reason: str
    cure: str = ""


def check_file(settings: Settings, file: Path, classes: Sequence[Scalar] = (), squash: str = "") -> list[Checked]:
    """Return what can be done with a model file; raises NotFound where there is none, Conflict where no child can be started."""
    try:
        model = adopt_model(settings, file, squash)
        signature = adopted_signature(model, (), _classes(model, classes, settings), settings.models)
        tried(model.onnx, settings.models, signature)
    except ArtifactInvalid as problem:
        cure = CURES["served"] if isinstance(problem, ModelUnsupported) else "export the file anew; it must run in onnxruntime"
        nothing = [
            Checked(what, able=False, reason="it cannot be served") for what in ("watched", "repaired", "trained", "compressed")
        ]
        return [Checked("served", able=False, reason=str(problem), cure=cure), *nothing]
    changes = "; ".join(model.notes) if model.notes else "as it is"
    found, problem_told = _abilities(settings, model, signature)
    return [
        Checked("served", able=True, reason=f"{changes}; {_told(signature)}"),
        _watched(settings, model, signature),
        _able("repaired", REPAIRS, found, problem_told),
        _able("trained", ("finetune",), found, problem_told),
        _able("compressed", COMPRESSIONS, found, problem_told),
    ]


def _classes(model: Adopted, given: Sequence[Scalar], settings: Settings) -> Sequence[Scalar]:
    """Return the classes as registration would take them, by number where neither the user nor the file names them."""
    if given or model.classes:
        return given
    seen = tried(model.onnx, settings.models)
    output: OutputSeen | None = next((one for one in seen.outputs if one.name == seen.graph.scores_name), None)
    if output is None:
        return ()
    columns = output.numbers[0] // max(output.rows[0], 1)
    return range(columns) if columns > 1 else range(2) if seen.graph.output(output.name).sigmoid else ()


def _told(signature: Signature) -> str:
    kinds = f"{len(signature.features) - len(signature.categories)} numbers and {len(signature.categories)} categories a row"
    what = f"{len(signature.classes)} classes" if signature.classes else "a number"
    return f"{kinds} in, {what} out of {signature.output_name!r}"


def _watched(settings: Settings, model: Adopted, signature: Signature) -> Checked:
    count, limit = len(signature.features), settings.monitor.max_features
    if count > limit:
        return Checked(
            "watched",
            able=False,
            reason=f"it has {count} features, predictions may have {limit}",
            cure="raise monitor.max_features",
        )
    notes = score_notes(model.onnx, signature, settings.models)
    cure = "--squash softmax puts the activation behind it" if notes else ""
    texts = "; categories are counted, no signal is made of them" if signature.categories else ""
    reason = (notes[0] if notes else "errors, features and scores") + texts
    return Checked("watched", able=True, reason=reason, cure=cure)


def _able(what: str, steps: Sequence[str], found: dict[str, str | None], problem: str) -> Checked:
    takes = [step for step in steps if step in found and found[step] is None]
    refused = "; ".join(f"{step}: {found.get(step) or problem}" for step in steps if step not in takes)
    if takes:
        by = f"by {', '.join(takes)}"
        return Checked(what, able=True, reason=f"{by} ({refused})" if refused else by)
    return Checked(what, able=False, reason=refused, cure=CURES[what])


def _abilities(settings: Settings, model: Adopted, signature: Signature) -> tuple[dict[str, str | None], str]:
    """Return what each step said of the model, and why those that said nothing did not."""
    with tempfile.TemporaryDirectory(prefix="driftloop-check-") as name:
        folder = Path(name)
        (folder / MODEL).write_bytes(model.onnx)
        (folder / SIGNATURE).write_bytes(msgspec.json.encode(signature))
        limits = Limits(settings.worker.job_timeout_s, settings.worker.job_memory_bytes)
        child = ChildProcess(MODULE, [str(folder)], folder, limits)
        try:
            ended = child.wait(settings.worker.job_timeout_s + 1.0)
        finally:
            child.stop()
        try:
            found = msgspec.json.decode((folder / FOUND).read_bytes(), type=dict[str, str | None])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            found = {}
    return found, "the child that tried it ended" if ended is None else f"the child that tried it ended: {ended.reason}"


def main(arguments: list[str]) -> int:
    """Try the steps on the model in the folder and write what they say; return the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write(f"usage: python -m {MODULE} FOLDER\n")
        return 2
    folder = Path(arguments[0])
    from ..compression.abilities import Ability, abilities

    found: dict[str, str | None] = {}

    def write(one: Ability) -> None:
        # Each at once: a step that ends the process must not take the others with it.
        found[one.step] = one.problem
        (folder / FOUND).write_bytes(msgspec.json.encode(found))

    signature = msgspec.json.decode((folder / SIGNATURE).read_bytes(), type=Signature)
    try:
        abilities((folder / MODEL).read_bytes(), signature, write)
    except DriftloopError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
