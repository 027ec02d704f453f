"""Make the tree ensembles in this folder, `tree_*.onnx`; no test needs what makes them.

`pip install lightgbm xgboost catboost scikit-learn skl2onnx onnxmltools`, then `python make_tree_exports.py`. The stored ones are of
lightgbm 4.7.0, xgboost 3.2.0, catboost 1.2.10, scikit-learn 1.9.1, skl2onnx 1.20.0, onnxmltools 1.16.0 and onnx 1.23.2.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier, LGBMRegressor
from onnx import ModelProto, helper
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier, XGBRegressor

FOLDER = Path(__file__).parent
ROUNDS = 8
INPUTS = [("X", FloatTensorType([None, 4]))]
PLAIN = {"random_state": 0, "max_leaf_nodes": 10}


def lightgbm(model: Any, rows: np.ndarray, labels: np.ndarray) -> ModelProto:
    """Return what onnxmltools makes of LightGBM; without `zipmap=False` its scores would be maps."""
    options = {} if isinstance(model, LGBMRegressor) else {"zipmap": False}
    return convert_lightgbm(model.fit(rows, labels), initial_types=INPUTS, target_opset=15, **options)


def xgboost(model: Any, rows: np.ndarray, labels: np.ndarray) -> ModelProto:
    """Return what onnxmltools makes of XGBoost."""
    return convert_xgboost(model.fit(rows, labels), initial_types=INPUTS, target_opset=15)


def catboost(model: Any, rows: np.ndarray, labels: np.ndarray) -> ModelProto:
    """Return CatBoost's own export."""
    with tempfile.TemporaryDirectory() as folder:
        model.fit(rows, labels).save_model(f"{folder}/model.onnx", format="onnx")
        return onnx.load(f"{folder}/model.onnx")


def sklearn(model: Any, rows: np.ndarray, labels: np.ndarray) -> ModelProto:
    """Return what skl2onnx makes of scikit-learn."""
    options = {"zipmap": False} if hasattr(model, "predict_proba") else None
    return to_onnx(model.fit(rows, labels), rows[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3})


def main() -> None:
    """Train and export boosted trees and forests for two classes, three classes and a number; a tenth of the values is missing."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1500, 4)).astype(np.float32)
    turn = rows[:, 0] + rows[:, 1] * rows[:, 2]
    two, three, number = (turn > 0).astype(np.int64), np.digitize(turn, [-0.5, 0.5]), (5 + 2 * turn).astype(np.float32)
    gaps = np.where(rng.random(rows.shape) < 0.1, np.nan, rows).astype(np.float32)
    light: dict[str, Any] = {"n_estimators": ROUNDS, "num_leaves": 7, "verbose": -1, "random_state": 0}
    extreme: dict[str, Any] = {"n_estimators": ROUNDS, "max_depth": 3, "random_state": 0}
    cat: dict[str, Any] = {"iterations": ROUNDS, "depth": 3, "verbose": 0, "random_seed": 0, "allow_writing_files": False}
    # onnxmltools 1.16 divides the sum of such trees by 100, however many there are: the export says a 12th of the number.
    bagged = LGBMRegressor(boosting_type="rf", bagging_freq=1, bagging_fraction=0.7, **light)
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), RandomForestClassifier(5, **PLAIN))
    made = {
        "lightgbm_two": lightgbm(LGBMClassifier(**light), gaps, two),
        "lightgbm_three": lightgbm(LGBMClassifier(**light), gaps, three),
        "lightgbm_number": lightgbm(LGBMRegressor(**light), gaps, number),
        "lightgbm_forest": lightgbm(bagged, gaps, number),
        "xgboost_two": xgboost(XGBClassifier(**extreme), gaps, two),
        "xgboost_three": xgboost(XGBClassifier(**extreme), gaps, three),
        "xgboost_number": xgboost(XGBRegressor(**extreme), gaps, number),
        "catboost_two": catboost(CatBoostClassifier(**cat), gaps, two),
        "catboost_three": catboost(CatBoostClassifier(**cat), gaps, three),
        "forest_three": sklearn(RandomForestClassifier(5, **PLAIN), rows, three),
        "extra_number": sklearn(ExtraTreesRegressor(5, **PLAIN), rows, number),
        "histogram_two": sklearn(HistGradientBoostingClassifier(max_iter=ROUNDS, **PLAIN), gaps, two),
        "pipeline_two": sklearn(pipeline, gaps, two),
        "double_two": sklearn(GradientBoostingClassifier(n_estimators=ROUNDS, random_state=0), rows.astype(np.float64), two),
        "double_forest": sklearn(RandomForestRegressor(5, **PLAIN), rows.astype(np.float64), number.astype(np.float64)),
    }
    for name, model in made.items():
        (FOLDER / f"tree_{name}.onnx").write_bytes(model.SerializeToString())


def _take_truth_values() -> None:
    """Let onnx 1.23 take the True and False that skl2onnx 1.20 gives as numbers for a histogram's trees."""
    own = helper.make_attribute

    def make_attribute(key: str, value: Any, *more: Any, **named: Any) -> Any:
        if isinstance(value, list) and any(isinstance(one, bool) for one in value):
            value = [int(one) for one in value]
        return own(key, value, *more, **named)

    helper.make_attribute = make_attribute


if __name__ == "__main__":
    _take_truth_values()
    main()
