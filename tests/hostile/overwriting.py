"""Results that would take the place of what was given."""

from tests.hostile.posteriors import COMPARE, other
from tests.hostile.shards import sharded
from tests.hostile.world import PREDICT, Case, Corpus, link


def as_it_is(*_: object) -> None:
    """Nothing is wrong but the command."""


over = Corpus("run, an output over", PREDICT, 2, "another file")
over.add("a shard", sharded(as_it_is), "--out shards", command="predict run --data shards --out shards/train-00000/manifest.parquet")
over.add("the manifest", as_it_is, "--out manifest.csv", command="predict run --data manifest.csv --out manifest.csv")
over.add("the manifest, by a link", link("m.csv", "manifest.csv"), "--out m.csv", command="predict run --data manifest.csv --out m.csv")
over.add("the run's config", as_it_is, "file of the run", command="predict run --data manifest.csv --out run/config.yaml")
over.add("the weights", as_it_is, "file of the run", command="impute run --data manifest.csv --out run/checkpoints/best.safetensors")
over.add("the history", as_it_is, "file of the run", command="evaluate run --data manifest.csv --out run/metrics.jsonl")
over.add("the manifest, by masks", as_it_is, "--masks", command="evaluate run --data manifest.csv --out m.json --masks manifest.csv")
over.add("a series", as_it_is, "--out p03.csv", command="predict run --data manifest.csv --out p03.csv")
over.add("a series, by a link", link("x.csv", "p03.csv"), "--out x.csv", command="predict run --data manifest.csv --out x.csv")
over.add("a picture", as_it_is, "--figure p03.png", command="predict run --data manifest.csv --out a.csv --figure p03.png")
over.add("a table", as_it_is, "--masks gases.csv", command="evaluate run --data manifest.csv --out m.json --masks gases.csv")
over.add("a posterior", other(as_it_is), "file of a run", command=f"{COMPARE} --out other/posterior.nc")
over.add(
    "the other one",
    as_it_is,
    "--report a.csv",
    "two",
    command="predict run --data manifest.csv --out a.csv --report a.csv",
    anywhere=True,
)

CASES: list[Case] = over.cases
