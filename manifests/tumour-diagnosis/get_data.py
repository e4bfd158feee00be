"""Writes data/breast_cancer.csv: the Wisconsin data that ships inside scikit-learn, 30 measurements and `malignant` (1 or 0)."""

import argparse
from pathlib import Path

from sklearn.datasets import load_breast_cancer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leave-out", type=int, default=0, metavar="N", help="another version of the data: without every N-th row")
    leave_out = parser.parse_args().leave_out
    bunch = load_breast_cancer(as_frame=True)
    frame = bunch.data.rename(columns=lambda name: name.replace(" ", "_"))
    frame["malignant"] = (bunch.target == list(bunch.target_names).index("malignant")).astype(int)
    if leave_out:
        frame = frame[frame.index % leave_out > 0]
    path = Path(__file__).parent / "data" / ("breast_cancer.new.csv" if leave_out else "breast_cancer.csv")
    path.parent.mkdir(exist_ok=True)
    frame.to_csv(path, index=False, lineterminator="\n")
    print(f"{path}: {len(frame)} rows, {frame.malignant.sum()} malignant")


if __name__ == "__main__":
    main()
