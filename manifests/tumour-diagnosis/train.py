"""TRAINING: imputes, scales and fits in one pipeline, so that serving does to raw measurements exactly what training did."""

import argparse
import os
from pathlib import Path

import joblib
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--label", required=True)
    parser.add_argument("--impute_strategy", default="median")
    parser.add_argument("--C", type=float, default=1.0, help="inverse strength of regularisation")
    parser.add_argument("--max_iter", type=int, default=1000)
    parser.add_argument("--threshold", type=float, default=0.5, help="probability from which a mass is called malignant")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    train = pd.read_parquet(os.environ["SM_CHANNEL_TRAIN"])
    features, label = train.drop(columns=arguments.label), train[arguments.label]
    pipeline = make_pipeline(
        SimpleImputer(strategy=arguments.impute_strategy),
        StandardScaler(),
        LogisticRegression(C=arguments.C, max_iter=arguments.max_iter),
    )
    model = FixedThresholdClassifier(pipeline, threshold=arguments.threshold, response_method="predict_proba")
    model.fit(features, label)
    joblib.dump(model, Path(os.environ["SM_MODEL_DIR"]) / "model.joblib")
    print(f"fitted on {len(features)} rows; accuracy on these {model.score(features, label):.3f}")


if __name__ == "__main__":
    main()
