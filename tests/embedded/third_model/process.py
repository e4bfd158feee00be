"""PROCESSING: splits the wines, and learns nothing from them."""

import argparse
import os
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

parser = argparse.ArgumentParser()
parser.add_argument("--holdout_share", type=float, required=True)
parser.add_argument("--seed", type=int, required=True)
arguments = parser.parse_args()

wines = pd.read_csv(Path(os.environ["SM_CHANNEL_SOURCE"]) / "wine.csv")
train, holdout = train_test_split(wines, test_size=arguments.holdout_share, stratify=wines["cultivar"], random_state=arguments.seed)
for name, part in (("train", train), ("holdout", holdout)):
    folder = Path(os.environ["SM_OUTPUT_DATA_DIR"]) / name
    folder.mkdir(parents=True)
    part.to_parquet(folder / "part-0.parquet", index=False)
    print(name, len(part), "wines")
