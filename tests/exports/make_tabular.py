"""Make the tabular exports in this folder and `expected.npz`, what their sources say of the same rows; no test needs the exporters.

`pip install scikit-learn==1.9.1 skl2onnx==1.20.0 onnxmltools==1.16.0 lightgbm==4.7.0 xgboost==3.2.0 catboost==1.2.10`, then
`python make_tabular.py`.
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from catboost import CatBoostClassifier, CatBoostRegressor
from lightgbm import LGBMClassifier, LGBMRegressor
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier, XGBRegressor

FOLDER = Path(__file__).parent
TREES = DecisionTreeClassifier(max_depth=3, random_state=0)
GBT = {"n_estimators": 6, "max_depth": 3, "random_state": 0}
LGB = {"n_estimators": 6, "num_leaves": 7, "verbose": -1}
CAT = {"iterations": 6, "depth": 3, "verbose": 0, "allow_writing_files": False, "random_seed": 0}
INPUT = [("input", FloatTensorType([None, 4]))]


def sklearn_file(model: Any, rows: np.ndarray) -> onnx.ModelProto:
    """Return what skl2onnx writes by default: a ZipMap behind a classifier."""
    return to_onnx(model, rows[:1], target_opset={"": 18, "ai.onnx.ml": 3})


def sklearn_matrix(model: Any, rows: np.ndarray) -> onnx.ModelProto:
    """Return what skl2onnx writes without ZipMap."""
    return to_onnx(model, rows[:1], options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3})


def lightgbm_file(model: Any, _: np.ndarray) -> onnx.ModelProto:
    """Return what onnxmltools makes of LightGBM."""
    return convert_lightgbm(model, initial_types=INPUT, target_opset=15)


def lightgbm_matrix(model: Any, _: np.ndarray) -> onnx.ModelProto:
    """Return what onnxmltools makes of LightGBM without ZipMap."""
    return convert_lightgbm(model, initial_types=INPUT, target_opset=15, zipmap=False)


def xgboost_file(model: Any, _: np.ndarray) -> onnx.ModelProto:
    """Return what onnxmltools makes of XGBoost."""
    return convert_xgboost(model, initial_types=INPUT, target_opset=15)


def catboost_file(model: Any, _: np.ndarray) -> onnx.ModelProto:
    """Return what CatBoost itself writes."""
    with tempfile.TemporaryDirectory() as name:
        model.save_model(f"{name}/model.onnx", format="onnx")
        return onnx.load(f"{name}/model.onnx")


Maker = Callable[[Any, np.ndarray], onnx.ModelProto]
MODELS: dict[str, tuple[Any, str, Maker]] = {
    "sk_forest": (RandomForestClassifier(5, max_depth=4, random_state=0), "two", sklearn_file),
    "sk_forest_matrix": (RandomForestClassifier(5, max_depth=4, random_state=1), "two", sklearn_matrix),
    "sk_forest_words": (RandomForestClassifier(4, max_depth=3, random_state=0), "words", sklearn_file),
    "sk_forest_three": (RandomForestClassifier(4, max_depth=3, random_state=0), "three", sklearn_file),
    "sk_forest_number": (RandomForestRegressor(4, max_depth=4, random_state=0), "number", sklearn_file),
    "sk_extra_trees": (ExtraTreesClassifier(4, max_depth=3, random_state=0), "three", sklearn_file),
    "sk_tree": (DecisionTreeClassifier(max_depth=5, random_state=0), "two", sklearn_file),
    "sk_boosting": (GradientBoostingClassifier(**GBT), "two", sklearn_file),
    "sk_boosting_three": (GradientBoostingClassifier(**GBT), "three", sklearn_file),
    "sk_boosting_number": (GradientBoostingRegressor(**GBT), "number", sklearn_file),
    "sk_adaboost": (AdaBoostClassifier(n_estimators=3, random_state=0), "two", sklearn_file),
    "sk_bagging": (BaggingClassifier(TREES, n_estimators=2, random_state=0), "two", sklearn_file),
    "sk_logistic": (LogisticRegression(), "two", sklearn_file),
    "sk_logistic_three": (LogisticRegression(), "three", sklearn_file),
    "sk_logistic_words": (LogisticRegression(), "words", sklearn_file),
    "sk_linear": (LinearRegression(), "number", sklearn_file),
    "sk_sgd": (SGDClassifier(loss="log_loss", random_state=0), "two", sklearn_file),
    "sk_svc": (SVC(probability=True, random_state=0), "two", sklearn_file),
    "sk_svc_three": (SVC(probability=True, kernel="poly", degree=2, random_state=0), "three", sklearn_file),
    "sk_svr": (SVR(), "number", sklearn_file),
    "sk_scaled": (make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), "two", sklearn_file),
    "sk_binned": (make_pipeline(KBinsDiscretizer(3, encode="onehot-dense"), Normalizer(), TREES), "two", sklearn_file),
    "sk_powers": (
        make_pipeline(MinMaxScaler(), Binarizer(threshold=0.5), PolynomialFeatures(2), LogisticRegression()),
        "two",
        sklearn_file,
    ),
    "sk_robust": (make_pipeline(RobustScaler(), MaxAbsScaler(), Ridge()), "number", sklearn_file),
    "sk_bayes": (GaussianNB(), "three", sklearn_file),
    "sk_net": (MLPClassifier((8,), random_state=0), "two", sklearn_file),
    "sk_calibrated": (CalibratedClassifierCV(LogisticRegression(), cv=2), "two", sklearn_file),
    "sk_pca": (make_pipeline(PCA(2, random_state=0), LogisticRegression()), "two", sklearn_file),
    "sk_discriminant": (LinearDiscriminantAnalysis(), "three", sklearn_file),
    "sk_stacked": (StackingClassifier([("a", TREES)], LogisticRegression()), "two", sklearn_file),
    "lgb": (LGBMClassifier(**LGB), "two", lightgbm_file),
    "lgb_matrix": (LGBMClassifier(**LGB), "two", lightgbm_matrix),
    "lgb_words": (LGBMClassifier(**LGB), "words", lightgbm_file),
    "lgb_three": (LGBMClassifier(**LGB), "three", lightgbm_file),
    "lgb_number": (LGBMRegressor(**LGB), "number", lightgbm_file),
    "xgb": (XGBClassifier(**GBT), "two", xgboost_file),
    "xgb_three": (XGBClassifier(**GBT), "three", xgboost_file),
    "xgb_number": (XGBRegressor(**GBT), "number", xgboost_file),
    "cat": (CatBoostClassifier(**CAT), "two", catboost_file),
    "cat_words": (CatBoostClassifier(**CAT), "words", catboost_file),
    "cat_three": (CatBoostClassifier(**CAT), "three", catboost_file),
    "cat_number": (CatBoostRegressor(**CAT), "number", catboost_file),
}


def features_of(count: int, seed: int) -> np.ndarray:
    """Return rows (n, 4) of standard normal numbers, as the tests make them."""
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def main() -> None:
    """Train and export each model, and store what it says of 40 rows."""
    warnings.filterwarnings("ignore")
    rows, asked = features_of(400, 1), features_of(40, 2)
    turn = rows[:, 0] + rows[:, 1] * rows[:, 2]
    two = (turn > 0).astype(np.int64)
    labels = {"two": two, "words": np.array(["no", "yes"])[two], "three": np.digitize(turn, [-0.5, 0.5]), "number": 5 + 2 * turn}
    expected = {"rows": asked}
    for name, (model, kind, export) in MODELS.items():
        model.fit(rows, labels[kind])
        (FOLDER / f"{name}.onnx").write_bytes(export(model, rows).SerializeToString())
        answers = model.predict(asked) if kind == "number" else model.predict_proba(asked)
        expected[f"{name}.{kind}"] = np.asarray(answers, np.float64).reshape(len(asked), -1)
    np.savez_compressed(FOLDER / "expected.npz", **expected)


if __name__ == "__main__":
    main()
