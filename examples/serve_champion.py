"""How does a serving process pick up each newly promoted model without a restart?

python examples/serve_champion.py MODEL      # settings from driftloop.toml and the environment; Ctrl-C ends it
"""

import sys
from typing import Any

import numpy as np

import driftloop

PAUSE_S = 1.0


class Service:
    """Answer with the champion, whichever it is, and log each answer under the version that gave it."""

    def __init__(self, client: driftloop.Client) -> None:
        self._client = client
        self._predictor: Any = None
        self._serving: driftloop.PromotedModel | None = None

    def switch(self, promoted: driftloop.PromotedModel) -> None:
        """Serve another model from the next request on."""
        self._predictor, self._serving = promoted.predictor(), promoted
        print(f"serving {promoted.model} version {promoted.version} ({promoted.digest[:12]})")

    def answer(self, features: Any) -> Any:
        """Return the answer to one request; `features` by name, or in the order of the signature."""
        assert self._serving is not None
        answer = self._predictor(features)
        logged: dict[str, Any] = {} if answer.scores is None else {"scores": answer.scores}
        model, version = self._serving.model, self._serving.version
        self._client.log_prediction(model, version=version, output=answer.output, features=features, **logged)
        return answer.output


def main() -> None:
    """Answer made-up requests, and look for another champion between them."""
    settings = driftloop.load_settings()
    draw = np.random.default_rng(0)
    with driftloop.Client(settings=settings) as client, driftloop.ModelWatcher(sys.argv[1], settings=settings) as watcher:
        service = Service(client)
        while watcher.current is None:
            promoted = watcher.poll(timeout_s=30.0)
            if promoted is None:
                print(f"no champion of {sys.argv[1]} yet")
                continue
            service.switch(promoted)
        while True:
            promoted = watcher.poll(timeout_s=PAUSE_S)
            if promoted is not None:
                service.switch(promoted)
            width = len(watcher.current.signature.features)
            print(service.answer(draw.normal(size=width).tolist()))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
