"""Serving and VALIDATION: raw measurements in, one number per row out."""

from pathlib import Path

import joblib


def model_fn(model_dir):
    """Return the fitted pipeline."""
    return joblib.load(Path(model_dir) / "model.joblib")


def predict_fn(data, model):
    """Return the expected progression after one year for each row."""
    return model.predict(data[list(model.feature_names_in_)].astype("float64"))
