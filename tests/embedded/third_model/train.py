"""TRAINING: scaler and discriminant analysis as one pipeline, fitted on the training set."""

import argparse
import os
from pathlib import Path

import joblib
import pandas as pd
import sklearn
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

parser = argparse.ArgumentParser()
parser.add_argument("--shrinkage", type=float, required=True)
parser.add_argument("--solver", required=True)
arguments = parser.parse_args()

train = pd.read_parquet(os.environ["SM_CHANNEL_TRAIN"])
analysis = LinearDiscriminantAnalysis(solver=arguments.solver, shrinkage=arguments.shrinkage)
model = make_pipeline(StandardScaler(), analysis).fit(train.drop(columns="cultivar"), train["cultivar"])
joblib.dump(model, Path(os.environ["SM_MODEL_DIR"]) / "model.joblib")
print("scikit-learn", sklearn.__version__, "on", len(train), "wines of", ", ".join(model.classes_))
