"""VALIDATION and serving: the cultivar, and the probability of each."""

from pathlib import Path

import joblib
import pandas as pd


def model_fn(model_dir):
    return joblib.load(Path(model_dir) / "model.joblib")


def predict_fn(data, model):
    features = data[list(model.feature_names_in_)]
    probabilities = pd.DataFrame(model.predict_proba(features), columns=[f"probability_{name}" for name in model.classes_])
    return probabilities.assign(cultivar=model.predict(features))
