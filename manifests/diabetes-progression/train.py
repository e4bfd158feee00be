"""TRAINING: encodes and fits in one pipeline, so that serving takes the measurements as they were taken."""

import argparse
import os
from pathlib import Path

import joblib
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--label", required=True)
    parser.add_argument("--n_estimators", type=int, default=100)
    parser.add_argument("--learning_rate", type=float, default=0.1)
    parser.add_argument("--max_depth", type=int, default=3)
    parser.add_argument("--subsample", type=float, default=1.0)
    parser.add_argument("--seed", type=int, required=True)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    train = pd.read_parquet(os.environ["SM_CHANNEL_TRAIN"])
    features, label = train.drop(columns=arguments.label), train[arguments.label]
    regressor = GradientBoostingRegressor(
        n_estimators=arguments.n_estimators,
        learning_rate=arguments.learning_rate,
        max_depth=arguments.max_depth,
        subsample=arguments.subsample,
        random_state=arguments.seed,
    )
    encoder = make_column_transformer((OneHotEncoder(drop="if_binary"), ["sex"]), remainder="passthrough")
    model = make_pipeline(encoder, regressor)
    model.fit(features, label)
    joblib.dump(model, Path(os.environ["SM_MODEL_DIR"]) / "model.joblib")
    print(f"fitted on {len(features)} rows; R2 on these {model.score(features, label):.3f}")


if __name__ == "__main__":
    main()
