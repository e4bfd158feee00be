"""Writes data/wine.csv from the copy of the data set that scikit-learn ships."""

from pathlib import Path

from sklearn.datasets import load_wine

wine = load_wine(as_frame=True)
table = wine.data.assign(cultivar=[str(wine.target_names[number]) for number in wine.target])
target = Path(__file__).parent / "data" / "wine.csv"
target.parent.mkdir(exist_ok=True)
table.to_csv(target, index=False, lineterminator="\n")
