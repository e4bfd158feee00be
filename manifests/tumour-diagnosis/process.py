"""PROCESSING: reads the measurements and splits them; nothing is fitted here, so the hold-out cannot leak into the model."""

import argparse
import os
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--label", required=True)
    parser.add_argument("--holdout_share", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    return parser.parse_args()


def read_source(folder: Path, label: str) -> pd.DataFrame:
    """Return all rows with a known diagnosis, each once, measurements as floats."""
    frame = pd.concat([pd.read_csv(path) for path in sorted(folder.glob("*.csv"))], ignore_index=True)
    frame = frame.dropna(subset=[label]).drop_duplicates(ignore_index=True)
    features = [column for column in frame.columns if column != label]
    return frame.astype(dict.fromkeys(features, "float64") | {label: "int64"})


def main() -> None:
    arguments = parse_arguments()
    frame = read_source(Path(os.environ["SM_CHANNEL_SOURCE"]), arguments.label)
    train, holdout = train_test_split(
        frame, test_size=arguments.holdout_share, stratify=frame[arguments.label], random_state=arguments.seed
    )
    for name, part in (("train", train), ("holdout", holdout)):
        folder = Path(os.environ["SM_OUTPUT_DATA_DIR"]) / name
        folder.mkdir(parents=True, exist_ok=True)
        part.to_parquet(folder / "part-0.parquet", index=False)
        print(f"{name}: {len(part)} rows, {part[arguments.label].mean():.1%} {arguments.label}")


if __name__ == "__main__":
    main()
