"""Serving and VALIDATION: raw measurements in, diagnosis and probability out."""

from pathlib import Path

import joblib
import pandas as pd


def model_fn(model_dir):
    """Return the fitted pipeline."""
    return joblib.load(Path(model_dir) / "model.joblib")


def predict_fn(data, model):
    """Return `malignant` (1 or 0) and `probability` for each row; missing measurements are imputed as in training."""
    measurements = data[list(model.feature_names_in_)].astype("float64")
    return pd.DataFrame(
        {
            "malignant": model.predict(measurements),
            "probability": model.predict_proba(measurements)[:, 1],
        }
    )
