"""Make the exports with other inputs than one matrix of float32, and `mixed.npz`, what their sources say of forty rows.

With the packages of make_tabular.py: `python make_mixed.py`. Columns of a model are stored as `<model>/<number>.<column>`, what it
answers as `<model>=<kind>`.
"""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from make_tabular import FOLDER, LGB, TREES, features_of
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import Int64TensorType as WholeColumn
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

COLOURS = np.array(["red", "green", "blue", "grey"])
SIZES = np.array(["small", "large"])
TYPES = {"f": FloatTensorType, "d": DoubleTensorType, "i": Int64TensorType, "s": StringTensorType}


def table(count: int, seed: int) -> pd.DataFrame:
    """Return rows with two numbers, a whole number and two texts, some of which no model was shown."""
    rng = np.random.default_rng(seed)
    numbers = features_of(count, seed)
    colours = COLOURS[rng.integers(4 if seed == 2 else 3, size=count)]
    return pd.DataFrame(
        {
            "amount": numbers[:, 0],
            "age": numbers[:, 1],
            "visits": rng.integers(0, 9, count),
            "colour": colours,
            "size": SIZES[rng.integers(2, size=count)],
        }
    )


def prepared(model: Any, texts: Any = None) -> Pipeline:
    """Return a pipeline that fills and scales numbers, encodes texts, and ends in `model`."""
    encoder = OneHotEncoder(handle_unknown="ignore") if texts is None else texts
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    parts = [("numbers", numbers, ["amount", "age", "visits"]), ("texts", encoder, ["colour", "size"])]
    return Pipeline([("columns", ColumnTransformer(parts)), ("model", model)])


def main() -> None:
    """Train and export each model, and store its columns and what it says of them."""
    warnings.filterwarnings("ignore")
    seen, asked = table(400, 1), table(40, 2)
    truth = seen.amount + (seen.colour == "red") * 2 - (seen["size"] == "small") + seen.visits / 5 - 1.5
    two = (truth > 0).astype(np.int64)
    types = {name: TYPES[kind] for name, kind in zip(seen.columns, "ffiss", strict=True)}
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    models = {
        "mixed_logistic": (prepared(LogisticRegression()), two, list(seen.columns)),
        "mixed_forest": (prepared(RandomForestClassifier(4, max_depth=4, random_state=0)), two, list(seen.columns)),
        "mixed_ordinal": (prepared(TREES, ordinal), two, list(seen.columns)),
        "mixed_number": (prepared(GradientBoostingRegressor(n_estimators=5, random_state=0)), truth, list(seen.columns)),
        "columns_logistic": (make_pipeline(StandardScaler(), LogisticRegression()), two, ["amount", "age"]),
    }
    told: dict[str, np.ndarray] = {}
    for name, (model, labels, columns) in models.items():
        model.fit(seen[columns], labels)
        inputs = [(column, types[column]([None, 1])) for column in columns]
        if name == "columns_logistic":  # skl2onnx puts columns of one kind together itself only where a ColumnTransformer says so
            model = Pipeline([("columns", ColumnTransformer([("all", "passthrough", columns)])), ("rest", model)])
            model.fit(seen[columns], labels)
        file = to_onnx(model, initial_types=inputs, target_opset={"": 18, "ai.onnx.ml": 3})
        (FOLDER / f"{name}.onnx").write_bytes(file.SerializeToString())
        for at, column in enumerate(columns):
            values = asked[column].to_numpy()
            told[f"{name}/{at}.{column}"] = values.astype("U8") if values.dtype == object else values
        kind = "number" if name.endswith("number") else "two"
        answers = model.predict(asked[columns]) if kind == "number" else model.predict_proba(asked[columns])
        told[f"{name}={kind}"] = np.asarray(answers, np.float64).reshape(len(asked), -1)
    rows, fresh = features_of(400, 1), features_of(40, 2)
    whole, fresh_whole = (np.rint(3 * one).astype(np.int64) for one in (rows, fresh))
    turn = (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(np.int64)
    for name, kind, column, matrices in (
        ("double_logistic", DoubleTensorType, None, (rows.astype(np.float64), fresh.astype(np.float64))),
        ("whole_forest", Int64TensorType, None, (whole, fresh_whole)),
        ("whole_lgb", None, WholeColumn, (whole, fresh_whole)),
    ):
        if column is not None:
            model = LGBMClassifier(**LGB).fit(matrices[0], turn)
            file = convert_lightgbm(model, initial_types=[("input", column([None, 4]))], target_opset=15)
        else:
            model = LogisticRegression() if name.startswith("double") else RandomForestClassifier(4, max_depth=4, random_state=0)
            model.fit(matrices[0], turn)
            file = to_onnx(model, initial_types=[("X", kind([None, 4]))], target_opset={"": 18, "ai.onnx.ml": 3})
        (FOLDER / f"{name}.onnx").write_bytes(file.SerializeToString())
        for at in range(4):
            told[f"{name}/{at}."] = matrices[1][:, at]
        told[f"{name}=two"] = model.predict_proba(matrices[1])
    np.savez_compressed(FOLDER / "mixed.npz", **told)


if __name__ == "__main__":
    main()
