"""Peer: quixstreams, exactly once: predictions and labels joined by id in a dict, River ADWIN per feature and on the error."""

import json
import sys
import tempfile
import time
from typing import Any

from peer_watch import Events, Watch
from quixstreams import Application


class QuixWatch(Watch):
    """Be a Watch that stops the application after the last record and notes when it was committed."""

    def __init__(self, app: Application, records: int) -> None:
        super().__init__()
        self.ended = 0.0
        self._app = app
        self._records = records
        # run() returns only after the group is left; the last commit is what counts.
        self._commit = app._processing_context.commit_checkpoint
        app._processing_context.commit_checkpoint = self._stamped_commit

    def take_prediction(self, event: dict[str, Any]) -> Events:
        drifts = self.on_prediction(event)
        self._stop_at_end()
        return drifts

    def take_label(self, event: dict[str, Any]) -> Events:
        drifts = self.on_label(event)
        self._stop_at_end()
        return drifts

    def _stop_at_end(self) -> None:
        if self.seen == self._records:
            self._app.stop()

    def _stamped_commit(self, **how: Any) -> None:
        self._commit(**how)
        if how.get("force") and not self.ended:
            self.ended = time.perf_counter()


def main() -> None:
    order = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            broker_address=order["bootstrap"],
            consumer_group=order["group"],
            auto_offset_reset="earliest",
            processing_guarantee="exactly-once",
            consumer_extra_config=order["fetch"],
            state_dir=folder,
            loglevel="WARNING",
        )
        watch = QuixWatch(app, 2 * order["pairs"])
        drift = app.topic(order["drift"], value_serializer="json")
        for kind, take in (("predictions", watch.take_prediction), ("labels", watch.take_label)):
            frame = app.dataframe(app.topic(order[kind], value_deserializer="json", key_deserializer="str"))
            frame.apply(take, expand=True).to_topic(drift)
        app.run()
    print(json.dumps({"pairs": watch.joined, "seconds": watch.ended - watch.started}))


if __name__ == "__main__":
    main()
