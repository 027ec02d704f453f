"""How does a service log what it predicts, and the labels once they are known?

python examples/log_from_service.py [HOST:PORT]      # default: the broker of driftloop.toml and the environment
"""

import random
import sys

import driftloop

MODEL = "example"
ROWS = 2_000
TURN = 1_200


def answer(income: float, debt: float) -> tuple[int, float]:
    """Return the class and its score, as a service's model would."""
    score = 1 / (1 + 2.718281828 ** (debt - income))
    return int(score > 0.5), score


def main() -> None:
    """Log predictions, and labels as if they came at once; after TURN rows the world means the opposite."""
    draw = random.Random(7)
    with driftloop.Client(sys.argv[1] if len(sys.argv) > 1 else None) as client:
        for row in range(ROWS):
            income, debt = draw.gauss(0, 1), draw.gauss(0, 1)
            output, score = answer(income, debt)
            prediction_id = client.log_prediction(
                MODEL, version=1, output=output, features={"income": income, "debt": debt}, scores=[1 - score, score]
            )
            truth = int(income > debt) if row < TURN else int(income < debt)
            client.log_label(MODEL, prediction_id, truth)
        waiting = client.flush(timeout_s=10.0)
        # What is not sent is never an error of the service: the client counts it, and says why.
        print(client.counters, client.reasons, f"{waiting} still wait")


if __name__ == "__main__":
    main()
