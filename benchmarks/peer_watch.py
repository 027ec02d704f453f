"""What both peers' programs do with an event: join by id in a dict, one River ADWIN per feature and one on the error."""

import time
from collections import defaultdict
from typing import Any

from river.drift import ADWIN

Events = list[dict[str, Any]]


class Watch:
    """Join predictions and labels of any order, feed the detectors, remember when the first record came."""

    def __init__(self) -> None:
        self.seen = 0
        self.joined = 0
        self.started = 0.0
        self._outputs: dict[str, Any] = {}
        self._early: dict[str, Any] = {}
        self._detectors: defaultdict[str, defaultdict[str, ADWIN]] = defaultdict(lambda: defaultdict(ADWIN))

    def on_prediction(self, event: dict[str, Any]) -> Events:
        """Return the drift events that a prediction caused."""
        self._count()
        model, drifts = event["model"], []
        detectors = self._detectors[model]
        for name, value in event["features"].items():
            detector = detectors[name]
            detector.update(value)
            if detector.drift_detected:
                drifts.append({"model": model, "signal": name})
        identity = event["prediction_id"]
        if identity in self._early:
            return drifts + self._join(model, event["output"], self._early.pop(identity))
        self._outputs[identity] = event["output"]
        return drifts

    def on_label(self, event: dict[str, Any]) -> Events:
        """Return the drift events that a label caused."""
        self._count()
        identity = event["prediction_id"]
        if identity in self._outputs:
            return self._join(event["model"], self._outputs.pop(identity), event["label"])
        self._early[identity] = event["label"]
        return []

    def _join(self, model: str, output: Any, label: Any) -> Events:
        self.joined += 1
        detector = self._detectors[model]["error"]
        detector.update(float(output != label))
        return [{"model": model, "signal": "error"}] if detector.drift_detected else []

    def _count(self) -> None:
        if not self.seen:
            self.started = time.perf_counter()
        self.seen += 1
