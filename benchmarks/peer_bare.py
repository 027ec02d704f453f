"""Peer: consume predictions and labels with confluent-kafka, orjson.loads each, and do nothing else; the ceiling of a JSON client."""

import gc
import json
import sys
import time

import orjson
from confluent_kafka import Consumer


def main() -> None:
    order = json.loads(sys.argv[1])
    settings = {"bootstrap.servers": order["bootstrap"], "group.id": order["group"], "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, **order["fetch"], "enable.auto.commit": False})
    consumer.subscribe([order["predictions"], order["labels"]])
    wanted, seen, started = 2 * order["pairs"], 0, 0.0
    gc.disable()
    while seen < wanted:
        batch = consumer.consume(order["consume_records"], 0.02)
        if batch and not started:
            started = time.perf_counter()
        for message in batch:
            orjson.loads(message.value())
        seen += len(batch)
    print(json.dumps({"pairs": order["pairs"], "seconds": time.perf_counter() - started}))
    consumer.close()


if __name__ == "__main__":
    main()
