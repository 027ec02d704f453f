"""Register a model file and make versions serve: what the command line and the demo write to the models topic."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..compression.seen import Adopted, Adoption
from ..compression.store import ArtifactStore, read_bounded
from ..detectors.admission import Admission
from ..schemas.codecs import encode_json
from ..schemas.config import ModelsConfig
from ..schemas.errors import ArtifactInvalid, Conflict, NotFound
from ..schemas.events import ModelPromoted, ModelRegistered, Scalar, Signature
from ..schemas.manifest import Manifest
from ..schemas.plain_text import shown
from ..settings import Settings
from .model_trial import DEFAULTS, adopted, tried
from .outgoing import publish
from .registry import Registry, read_registry
from .transport import Transport

TRIES = 5


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model file to register; `recipe` says in the manifest where it came from."""

    model: str
    onnx: bytes
    signature: Signature
    recipe: str = "imported"
    trained_rows: int = 0
    metric: float | None = None


def read_model(settings: Settings, file: Path) -> bytes:
    """Return the bytes of a model file; raises NotFound, ArtifactInvalid where it is no plain file or a larger one than may be."""
    try:
        return read_bounded(file, settings.models.max_bytes)
    except FileNotFoundError:
        raise NotFound(f"model file must exist ({file})") from None
    except OSError as problem:
        raise ArtifactInvalid(f"model file must be readable, got {problem.strerror} ({file})") from None


def adopt_model(settings: Settings, file: Path, squash: str = "") -> Adopted:
    """Return a model file as an exporter wrote it, made one that can be served; raises as read_model and `adopted`."""
    return adopted(read_model(settings, file), settings.models, Adoption(squash, str(file.absolute())))


def adopted_signature(
    model: Adopted, features: Sequence[str], classes: Sequence[Scalar], config: ModelsConfig = DEFAULTS
) -> Signature:
    """Return the signature of an adopted file: names and classes of the file where none are given; raises as file_signature."""
    names = tuple(features) if features else model.features
    made = file_signature(model.onnx, names, classes if classes else model.classes, config)
    own = dict(zip(names, model.features, strict=True)) if model.features else {}
    categories = {name: model.categories[column] for name, column in own.items() if column in model.categories}
    return msgspec.structs.replace(made, categories=categories)


def score_notes(onnx: bytes, signature: Signature, config: ModelsConfig = DEFAULTS) -> tuple[str, ...]:
    """Return what to say of the scores of a model: nothing where they are numbers or chances."""
    found = next((one for one in tried(onnx, config).outputs if one.name == signature.output_name), None)
    if signature.task == "regression" or found is None or found.chances:
        return ()
    told = f"output {shown(found.name)} gives no chances (logits, margins or counts): log_loss and roc_auc need chances;"
    return (f"{told} --squash softmax puts them behind it",)


def file_signature(onnx: bytes, features: Sequence[str], classes: Sequence[Scalar], config: ModelsConfig = DEFAULTS) -> Signature:
    """Return the signature of a model file; features are numbered where not named, no classes means regression.

    Raises ArtifactInvalid for a file that is no sound model, Conflict where the names are not as many as its inputs.
    """
    graph = tried(onnx, config).graph
    count = graph.feature_count
    names = tuple(features) if features else tuple(f"x{at}" for at in range(count))
    if len(names) != count:
        raise Conflict(f"features must be {count}, as the model's input has, got {len(names)} names")
    return Signature(
        task="classification" if classes else "regression",
        features=names,
        classes=tuple(classes),
        input_name=graph.input_name,
        output_name=graph.scores_name,
    )


def register(settings: Settings, transport: Transport, new: NewModel) -> ModelRegistered:
    """Put a model into the store and tell of it under the next free version.

    Raises ArtifactInvalid for a bad file, EventInvalid for a name or a signature that the monitor would refuse, Conflict for one that
    is larger than a record may be.
    """
    count, limit = len(new.signature.features), settings.monitor.max_features
    if count > limit:
        raise Conflict(f"features must be at most {limit}, as predictions may have, got {count} (raise monitor.max_features)")
    rules = Admission(settings.monitor)
    rules.name(new.model, new.model.encode(errors="replace"))
    rules.signature(new.signature)
    size_bytes, limit_bytes = len(encode_json(new.signature)), settings.monitor.max_value_bytes
    if size_bytes > limit_bytes // 2:
        raise Conflict(f"signature must have at most {limit_bytes // 2} bytes, got {size_bytes} (shorten the names of features)")
    tried(new.onnx, settings.models, new.signature)
    for _ in range(TRIES):
        registry = read_registry(transport, settings)
        known = {event.digest: event for event in registry.versions(new.model)}
        parent = registry.champion(new.model)
        stored = ArtifactStore(settings.store.url).put(new.onnx, _manifest(new, parent))
        if stored.digest in known:
            return known[stored.digest]
        event = ModelRegistered(
            model=new.model,
            version=registry.next_version(new.model),
            digest=stored.digest,
            uri=stored.uri,
            size_bytes=stored.size_bytes,
            signature=new.signature,
            parent_version=None if parent is None else parent.version,
            metric=new.metric,
            manifest_digest=stored.manifest_digest,
        )
        publish(settings, transport, event)
        # Somebody else may have taken the number at the same moment: the topic's order says who has it.
        after = {one.version: one for one in read_registry(transport, settings).versions(new.model)}
        if after[event.version].digest == event.digest:
            return after[event.version]
    raise Conflict(f"model must get a version of its own, got {TRIES} that others took ({new.model})")


def promote(settings: Settings, transport: Transport, wanted: tuple[str, int], reason: str) -> ModelPromoted:
    """Make a version (model, number) the champion; raises NotFound where it is not registered, Conflict where it serves already."""
    model, version = wanted
    registry = read_registry(transport, settings)
    chosen = known_version(registry, model, version)
    champion = registry.champion(model)
    if champion is not None and champion.version == version:
        raise Conflict(f"version must not be the champion already, got {version} ({model})")
    previous = None if champion is None else champion.version
    event = ModelPromoted(
        model=model, version=version, digest=chosen.digest, reason=reason, previous_version=previous, metric=chosen.metric
    )
    publish(settings, transport, event)
    return event


def known_version(registry: Registry, model: str, version: int) -> ModelRegistered:
    """Return a registered version; raises NotFound with those there are."""
    versions = {event.version: event for event in known_model(registry, model)}
    if version not in versions:
        raise NotFound(f"version must be one of {', '.join(map(str, versions))}, got {version} ({model})")
    return versions[version]


def known_model(registry: Registry, model: str) -> list[ModelRegistered]:
    """Return the versions of a model; raises NotFound with the models there are."""
    versions = registry.versions(model)
    if not versions:
        there = ", ".join(registry.models)
        raise NotFound(f"model must be registered, got {model!r} ({f'models are {there}' if there else 'there is none yet'})")
    return versions


def _manifest(new: NewModel, parent: ModelRegistered | None) -> Manifest:
    return Manifest(
        digest=hashlib.sha256(new.onnx).hexdigest(),
        size_bytes=len(new.onnx),
        model=new.model,
        signature=new.signature,
        recipe=new.recipe,
        parent_digest=None if parent is None else parent.digest,
        parent_version=None if parent is None else parent.version,
        trained_rows=new.trained_rows,
    )
