"""What each tracker has written, read by its own means."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Epochs = dict[int, dict[str, float]]  # step -> name -> value


@dataclass
class Told:
    """Of one run of a tracker: numbers by step, those of the end, parameters as text, and how often each step was told."""

    epochs: Epochs = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    ended: bool | None = None

    def add(self, name: str, step: int, value: float) -> None:
        if name.startswith("best/"):
            self.best[name] = value
        else:
            self.epochs.setdefault(step, {})[name] = value


def tensorboard(run: Path) -> Told:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told = Told()
    events = EventAccumulator(str(run / "trackers" / "tensorboard"), {"scalars": 0, "tensors": 0}).Reload()
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            told.add(name, event.step, event.value)
            if name == "elbo":
                told.times[event.step] = told.times.get(event.step, 0) + 1
    (text,) = (event.tensor_proto.string_val[0].decode() for event in events.Tensors("config/text_summary"))
    told.parameters = dict(line.strip("| ").split(" | ") for line in text.splitlines()[2:])
    told.ids = {"the folder"}
    return told


def mlflow(run: Path) -> Told:
    from mlflow import MlflowClient

    told = Told()
    client = MlflowClient(f"sqlite:///{run.resolve()}/trackers/mlflow/mlflow.db")
    (experiment,) = (found for found in client.search_experiments() if found.name == "cm2pyro")
    (found,) = client.search_runs([experiment.experiment_id])
    for name in found.data.metrics:
        for metric in client.get_metric_history(found.info.run_id, name):
            told.add(name, metric.step, metric.value)
            if name == "elbo":
                told.times[metric.step] = told.times.get(metric.step, 0) + 1
    told.parameters = found.data.params
    told.ids, told.ended = {found.info.run_id}, found.info.status == "FINISHED"
    return told


def wandb(run: Path) -> Told:
    import json

    told = Told()
    for path in sorted((run / "trackers" / "wandb").glob("offline-run-*/*.wandb")):
        for record in _wandb_records(path):
            if record.HasField("run"):
                told.ids.add(record.run.run_id)
                told.parameters |= {update.key: str(json.loads(update.value_json)) for update in record.run.config.update}
            if record.HasField("history"):
                step = record.history.step.num
                told.times[step] = told.times.get(step, 0) + 1
                for item in record.history.item:
                    name = "/".join(item.nested_key) or item.key
                    if not name.startswith("_"):
                        told.add(name, step, json.loads(item.value_json))
            if record.HasField("summary"):
                keys = {"/".join(update.nested_key) or update.key: json.loads(update.value_json) for update in record.summary.update}
                told.best |= {key: value for key, value in keys.items() if key.startswith("best/")}
            if record.HasField("exit"):
                told.ended = record.exit.exit_code == 0
    return told


def _wandb_records(path: Path) -> Iterator[Any]:
    """Records of an offline run: LevelDB's log format, blocks of 32 KiB, after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


READERS = {"tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb}
