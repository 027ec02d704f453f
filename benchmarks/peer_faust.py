"""Peer: Faust agents as its docs have a user write them: predictions and labels joined by id, River ADWIN per feature and on the error."""

import json
import os
import sys
import tempfile
import time
from typing import Any

import faust
from peer_watch import Events, Watch


def build(order: dict[str, Any], folder: str) -> faust.App:
    """Return the application: one agent a topic; it ends the process once the last pair is committed."""
    app = faust.App(
        order["group"],
        broker=f"kafka://{order['bootstrap']}",
        datadir=folder,
        topic_disable_leader=True,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
    )
    watch = Watch()
    drift = app.topic(order["drift"], value_serializer="json")

    async def after(drifts: Events) -> None:
        for found in drifts:
            await drift.send(key=found["model"], value=found)
        if watch.joined >= order["pairs"]:
            await app.consumer.commit()
            answer = {"pairs": watch.joined, "seconds": time.perf_counter() - watch.started}
            # The worker has put its logger in the place of sys.stdout.
            print(json.dumps(answer), file=sys.__stdout__, flush=True)
            os._exit(0)

    @app.agent(app.topic(order["predictions"], value_serializer="json"))
    async def on_predictions(stream: Any) -> None:
        async for event in stream:
            await after(watch.on_prediction(event))

    @app.agent(app.topic(order["labels"], value_serializer="json"))
    async def on_labels(stream: Any) -> None:
        async for event in stream:
            await after(watch.on_label(event))

    return app


def main() -> None:
    order = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        app = build(order, folder)
        sys.argv = [sys.argv[0], "worker", "--loglevel", "error", "--without-web"]
        app.main()


if __name__ == "__main__":
    main()
