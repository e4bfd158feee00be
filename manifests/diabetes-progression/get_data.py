"""Writes data/diabetes.csv: the diabetes data that ships inside scikit-learn, ten raw measurements and `progression`."""

import argparse
from pathlib import Path

from sklearn.datasets import load_diabetes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leave-out", type=int, default=0, metavar="N", help="another version of the data: without every N-th row")
    leave_out = parser.parse_args().leave_out
    frame = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression"})
    if leave_out:
        frame = frame[frame.index % leave_out > 0]
    path = Path(__file__).parent / "data" / ("diabetes.new.csv" if leave_out else "diabetes.csv")
    path.parent.mkdir(exist_ok=True)
    frame.to_csv(path, index=False, lineterminator="\n")
    print(f"{path}: {len(frame)} rows")


if __name__ == "__main__":
    main()
