"""Who is watched: models with their lanes and versions, made, restarted and forgotten as rows say."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakValueDictionary

from ..schemas.config import MonitorConfig
from .blocks import Bank
from .columns import FeatureGroup, InputRows, Ints
from .episodes import EpisodeBook
from .lanes import Lane
from .model_table import ModelTable
from .scorekeeper import Scorekeeper
from .scratch import Scratch
from .versions import Runs, Turn, Turns, Version, VersionGate, Watched, version_runs
from .warm_up import LaneKind

ERROR_HISTORY_BLOCKS = 256
INPUT_HISTORY_BLOCKS = 64


class Roster:
    """The models and versions of a partition, and the banks their lanes lie in."""

    def __init__(self, config: MonitorConfig, scores: Scorekeeper, table: ModelTable) -> None:
        self.table = table
        self.config = config
        self.scores = scores
        self.models: dict[int, Watched] = {}
        self.by_slot: list[Version] = []
        self.free: list[int] = []
        self.gone: list[str] = []
        self.touched: set[int] = set()
        self.unsaved: dict[int, None] = {}
        self.fresh_inputs: set[int] = set()
        self.input_banks: dict[int, Bank] = {}
        self._scratch = Scratch()
        self.outputs = Bank(1, config.clip_sd, self._scratch)
        self.errors = Bank(1, config.clip_sd, self._scratch)
        # A kind is one for all lanes alike: names of signals would else be made for each model of a flood.
        self._input_kinds: WeakValueDictionary[tuple[str, ...], LaneKind] = WeakValueDictionary()
        self._output_kind = _careful("confidence", config, config.input_block_rows, INPUT_HISTORY_BLOCKS)
        self._residual_kind = _careful("error", config, config.error_block_rows, ERROR_HISTORY_BLOCKS)
        self._share_kind = replace(self._residual_kind, binary=True)
        self._gate = VersionGate(config, table, self.models)

    def meet(self, inputs: InputRows) -> None:
        """Make the inputs lanes of new models, and make all lanes anew where a model's layout or task changed."""
        for slot in _slots(inputs.model):
            self.watched(slot, self.table.generation(slot))
        for group in inputs.groups:
            layout = group_layout(group)
            for slot in _slots(inputs.model[group.rows]):
                watched = self.models[slot]
                if watched.inputs is None or watched.layout != layout:
                    self._drop_inputs(watched)
                    watched.layout, watched.inputs = layout, self.inputs_lane(slot, layout)
                    # Saved together: the rows that brought it may be refused yet, and then nothing else says so.
                    self.touched.add(slot)
                    self.fresh_inputs.add(slot)

    def watched(self, slot: int, generation: int) -> Watched:
        """Return a model, with new lanes where it is of another generation."""
        known = self.models.get(slot)
        if known is None:
            known = self.models[slot] = Watched(slot, EpisodeBook(self.config), generation)
            self.unsaved[slot] = None
        elif known.generation != generation:
            self._renew(known, generation)
        return known

    def remove(self, slot: int) -> None:
        """Forget a model with all it has."""
        watched = self.models.pop(slot, None)
        if watched is None:
            return
        for version in list(watched.versions.values()):
            self.forget(watched, version)
        self._drop_inputs(watched)
        self.touched.discard(slot)
        self.unsaved.pop(slot, None)
        self.fresh_inputs.discard(slot)
        self.gone += [f"m/{slot}", f"i/{slot}"]

    def renew(self, slot: int) -> None:
        """Begin a model anew at once if its layout or task changed: what joins before its next prediction counts for the new one."""
        known = self.models.get(slot)
        if known is not None and known.generation != self.table.generation(slot):
            self._renew(known, self.table.generation(slot))

    def _renew(self, known: Watched, generation: int) -> None:
        before = list(known.versions.values())
        for version in before:
            self.forget(known, version)
        self._drop_inputs(known)
        known.generation = generation
        for version in before:
            # The predictions without a label are waited for still.
            made = self.version(known.slot, version.number)
            made.predictions, made.last_seen = max(0, version.predictions - version.labelled), version.last_seen
        self.touched.add(known.slot)
        self.fresh_inputs.add(known.slot)

    def _drop_inputs(self, watched: Watched) -> None:
        if watched.inputs is not None:
            bank = watched.inputs.bank
            bank.drop(watched.inputs.index)
            watched.inputs = None
            if bank.is_empty:
                del self.input_banks[bank.width]

    def turns(self, inputs: InputRows) -> tuple[Runs, Turns]:
        """Return the rows by version, and which of them begin a version anew or are refused."""
        runs = version_runs(inputs.model, inputs.version)
        return runs, self._gate.find(inputs, runs)

    def turn(self, turn: Turn) -> None:
        """Restart a version that was away, or forget the one that gives way to a new one."""
        watched = self.models[turn.model]
        if turn.gives_way is not None:
            self.forget(watched, watched.versions[turn.gives_way])
            return
        version = watched.versions[turn.version]
        version.output.begin()
        version.error.begin()
        version.last_seen = watched.predictions

    def version(self, slot: int, number: int) -> Version:
        """Return a version, a new one where it is not known."""
        watched = self.models[slot]
        known = watched.versions.get(number)
        if known is None:
            at = self.free.pop() if self.free else len(self.by_slot)
            known = self.new_version(at, slot, number)
        return known

    def new_version(self, at: int, slot: int, number: int) -> Version:
        """Make a version in version slot `at`."""
        output, error = self.output_lane(slot, number), self.error_lane(slot, number)
        made = Version(at, slot, number, output, error, last_seen=self.models[slot].predictions)
        if at == len(self.by_slot):
            self.by_slot.append(made)
        else:
            self.by_slot[at] = made
        self.models[slot].versions[number] = made
        return made

    def forget(self, watched: Watched, version: Version) -> None:
        """Drop a version with its lanes and sums."""
        del watched.versions[version.number]
        self.outputs.drop(version.output.index)
        self.errors.drop(version.error.index)
        self.scores.forget(version.slot)
        self.free.append(version.slot)
        self.gone.append(f"v/{version.model}/{version.number}")

    def inputs_lane(self, slot: int, layout: tuple[str, ...]) -> Lane:
        """Return a new lane for the numeric features named in `layout` and the latency."""
        bank = self.input_banks.get(len(layout) + 1)
        if bank is None:
            bank = self.input_banks[len(layout) + 1] = Bank(len(layout) + 1, self.config.clip_sd, self._scratch)
        kind = self._input_kinds.get(layout)
        if kind is None:
            kind = self._input_kinds[layout] = self._inputs_kind(layout)
        return Lane(kind, self.config, bank, (slot, 0))

    def _inputs_kind(self, layout: tuple[str, ...]) -> LaneKind:
        return LaneKind(
            numbers=(*(f"feature/{name}" for name in layout), "latency_ms"),
            shares=len(layout),
            binary=False,
            careful=False,
            delta=self.config.adwin_delta / (2 * len(layout) + 1),
            least_block_rows=self.config.input_block_rows,
            history_blocks=INPUT_HISTORY_BLOCKS,
        )

    def output_lane(self, slot: int, number: int) -> Lane:
        """Return a new lane for a version's confidence."""
        return Lane(self._output_kind, self.config, self.outputs, (slot, number))

    def error_lane(self, slot: int, number: int) -> Lane:
        """Return a new lane for a version's error."""
        kind = self._share_kind if self.table.task(slot) == "classification" else self._residual_kind
        return Lane(kind, self.config, self.errors, (slot, number))


def _careful(name: str, config: MonitorConfig, block_rows: int, history_blocks: int) -> LaneKind:
    """Return the kind of the lanes of one signal that Page-Hinkley watches too."""
    return LaneKind(
        numbers=(name,),
        shares=0,
        binary=False,
        careful=True,
        delta=config.adwin_delta,
        least_block_rows=block_rows,
        history_blocks=history_blocks,
    )


def _slots(column: Ints) -> set[int]:
    if len(column) and (column == column[0]).all():
        return {int(column[0])}
    return set(column.tolist())


def group_layout(group: FeatureGroup) -> tuple[str, ...]:
    """Return the names of the numeric features."""
    if group.numeric.all():
        return group.names
    return tuple(name for name, numeric in zip(group.names, group.numeric.tolist(), strict=True) if numeric)
