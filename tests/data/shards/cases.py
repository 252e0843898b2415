"""What the tests of shards share: sizes, tables and a config with every kind."""

from cm2pyro.config import Config
from cm2pyro.data.prepared import Preparation
from cm2pyro.encoders import check_encoders

N = 120
TABLES = ("series.parquet", "static.csv")
CONFIG = {
    "modalities": {
        "series": {"kind": "timeseries", "encoder": "summary_lstm", "table": "series.parquet", "hours": 6, "bin_hours": 1, "hidden": 4},
        "static": {"kind": "tabular", "encoder": "mlp", "table": "static.csv", "hidden": 4},
        "vector": {"kind": "embedding", "encoder": "mlp", "hidden": 4},
        "film": {"kind": "image", "encoder": "cnn", "size": 16, "resize": 16, "width": 2},
        "note": {"kind": "text", "encoder": "bag", "max_tokens": 12, "vocabulary": 300, "hidden": 4},
    },
    "latent": {"dim": 2},
    "prior": {"components": 2},
    "fusion": {"kind": "mlp", "hidden": 4},
    "fit": {"epochs": 2, "batch_size": 16, "lr": 0.01, "patience": 9},
}


def fresh() -> Preparation:
    config = Config.from_dict(CONFIG)
    return Preparation.from_config(config, check_encoders(config, {}))
