"""A table whose classes turn round, for the tests of the demo."""

from pathlib import Path

import numpy as np


def table_file(folder: Path) -> Path:
    """Write 4,200 rows whose classes turn round at row 2,400."""
    random = np.random.default_rng(4)
    features = random.normal(size=(4_200, 3))
    labels = ((features[:, 0] + features[:, 1] > 0) != (np.arange(4_200) >= 2_400)).astype(int)
    path = folder / "table.csv"
    path.write_text(
        "\n".join(["a,b,c,y", *(f"{a:.4f},{b:.4f},{c:.4f},{y}" for (a, b, c), y in zip(features, labels, strict=True))])
    )
    return path
