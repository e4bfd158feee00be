"""PROCESSING: splits the patients, with equal shares of slow and fast progression in both parts."""

import argparse
import os
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--label", required=True)
    parser.add_argument("--holdout_share", type=float, required=True)
    parser.add_argument("--strata", type=int, required=True, help="number of equal-sized groups of the label")
    parser.add_argument("--seed", type=int, required=True)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    sources = sorted(Path(os.environ["SM_CHANNEL_SOURCE"]).glob("*.csv"))
    frame = pd.concat([pd.read_csv(path) for path in sources], ignore_index=True).astype("float64")
    strata = pd.qcut(frame[arguments.label], arguments.strata, labels=False)
    train, holdout = train_test_split(frame, test_size=arguments.holdout_share, stratify=strata, random_state=arguments.seed)
    for name, part in (("train", train), ("holdout", holdout)):
        folder = Path(os.environ["SM_OUTPUT_DATA_DIR"]) / name
        folder.mkdir(parents=True, exist_ok=True)
        part.to_parquet(folder / "part-0.parquet", index=False)
        print(f"{name}: {len(part)} rows, mean {arguments.label} {part[arguments.label].mean():.1f}")


if __name__ == "__main__":
    main()
