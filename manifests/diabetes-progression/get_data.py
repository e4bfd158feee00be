"""Writes data/diabetes.csv: the diabetes data that ships inside scikit-learn, ten raw measurements and `progression`."""

from pathlib import Path

from sklearn.datasets import load_diabetes


def main() -> None:
    frame = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression"})
    path = Path(__file__).parent / "data" / "diabetes.csv"
    path.parent.mkdir(exist_ok=True)
    frame.to_csv(path, index=False, lineterminator="\n")
    print(f"{path}: {len(frame)} rows")


if __name__ == "__main__":
    main()
