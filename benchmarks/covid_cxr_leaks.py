"""What tells COVID-19 from other findings in the prepared collection without any image being read.

    cm2pyro prepare covid-cxr --records covid_cxr --out data/covid
    cm2pyro prepare covid-cxr --records covid_cxr --out data/covid-named --no-blank
    python benchmarks/covid_cxr_leaks.py data/covid data/covid-named

Logistic regressions on words, on the pattern of what was recorded, and on age, sex and view: AUROC, mean and sd over ten five-fold
cross-validations by subject, over all splits. Nothing is tuned.
"""

from pathlib import Path

import click
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

_MEASURED = ["age", "sex", "offset", "temperature", "pO2_saturation", "leukocyte_count", "neutrophil_count", "lymphocyte_count"]


def _auroc(x: NDArray, y: NDArray, subjects: NDArray, model: Pipeline) -> str:
    values = []
    for seed in range(10):
        score = np.zeros(len(y))
        for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(x, y, subjects):
            score[test] = model.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
        values.append(roc_auc_score(y, score))
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def _words() -> Pipeline:
    return make_pipeline(TfidfVectorizer(min_df=2, token_pattern=r"\[blank\]|\b\w\w+\b"), LogisticRegression(C=10, class_weight="balanced"))


@click.command()
@click.argument("prepared", type=click.Path(path_type=Path), nargs=-1, required=True)
def main(prepared: tuple[Path, ...]) -> None:
    for folder in prepared:
        manifest = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
        static = pd.read_parquet(folder / "static.parquet")
        y, subjects = manifest["label"].astype(int).to_numpy(), manifest["subject_id"].to_numpy()
        noted = (manifest["note"] != "").to_numpy()
        notes = manifest["note"].to_numpy()[noted]
        print(f"{folder}: {len(y)} images, {noted.sum()} notes")
        print(f"  words of the notes         {_auroc(notes, y[noted], subjects[noted], _words())}")
        recorded = static[_MEASURED].notna().to_numpy(dtype=float)
        print(f"  which values were recorded {_auroc(recorded, y, subjects, make_pipeline(LogisticRegression()))}")
        safe = pd.concat([static[["age"]], pd.get_dummies(static[["sex", "view"]], dtype=float)], axis=1).to_numpy(dtype=float)
        filled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression())
        print(f"  age, sex and view          {_auroc(safe, y, subjects, filled)}")
        print(f"  that there is no note      {roc_auc_score(y, ~noted):.3f}")


if __name__ == "__main__":
    main()
