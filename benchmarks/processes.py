"""What several processes change: how far a fit ends from that of one process, and how much faster it goes.

    torchrun --nproc_per_node=2 benchmarks/processes.py [--rows 2560] [--batch 256] [--steps 20] [--encoder lstm] [--hidden 128]
        [--bins 48] [--device cpu]

A time series (LSTM, or with --encoder transformer) beside a vector, 30% of each missing, no dropout. The first process fits alone while
the others wait, then all fit together: the same data, seed and global batches, so that both see the same noise. Seconds are those of
a step, medians over all but the first; each process has one thread unless OMP_NUM_THREADS says otherwise. The speed-up is by the clock,
and other work on the machine lowers it; the ratio of the first process's own CPU seconds is what it would be on idle cores, at most.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any

import torch

from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch, Dataset
from cm2pyro.inference import distributed
from cm2pyro.inference.device import pick_device
from cm2pyro.inference.fit import Trainer
from cm2pyro.inference.program import Program

CHANNELS, WIDTH = 12, 16
KINDS = ("seconds", "cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2560)
    parser.add_argument("--batch", type=int, default=256, help="of all processes together")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--bins", type=int, default=48)
    parser.add_argument("--encoder", default="lstm")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    if "RANK" not in os.environ:
        parser.error("start it with torchrun --nproc_per_node=N")
    with distributed.processes():
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    device = pick_device(asked.device)
    dataset = made(asked.rows, asked.bins)
    with distributed.alone():
        single = fit(asked, dataset, device) if asked_first() else None
    distributed.most(0)  # the others wait here
    several = fit(asked, dataset, device)
    if single is None:
        return
    one, all_ = single.program.state_dict(), several.program.state_dict()
    apart = {name: float((value.double() - all_[name].double()).abs().max()) for name, value in one.items()}
    name = max(apart, key=lambda key: apart[key])
    seconds, cpu = ([statistics.median(values[1:] or values) for values in (getattr(t, kind) for t in (single, several))] for kind in KINDS)
    result = {
        "processes": distributed.world(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in single.program.parameters()),
        "steps": single.progress.step,
        "largest_difference": apart[name],
        "at": name,
        "seconds_a_step": [round(value, 4) for value in seconds],
        "speed_up": round(seconds[0] / seconds[1], 2),
        "cpu_seconds_a_step": [round(value, 4) for value in cpu],
        "cpu_ratio": round(cpu[0] / cpu[1], 2),
        "load_average": os.getloadavg()[0],
    }
    print(json.dumps(result, indent=1))


def asked_first() -> bool:
    """Whether this is the first process, also where it computes alone."""
    return os.environ["RANK"] == "0"


class Timed(Trainer):
    """A trainer that keeps the seconds of every step, of the clock and of this process."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def _step(self, batch: Batch) -> None:
        start, own = time.perf_counter(), time.process_time()
        super()._step(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - start)
        self.cpu.append(time.process_time() - own)


def fit(asked: argparse.Namespace, dataset: Dataset, device: torch.device) -> Timed:
    """`--steps` steps on the same batches, without what precedes and follows an epoch's steps."""
    epochs = -(-asked.steps * asked.batch // asked.rows)
    encoder: dict[str, Any] = {"kind": "timeseries", "encoder": asked.encoder, "table": "t.csv", "dropout": 0.0, "hidden": asked.hidden}
    config = Config.from_dict(
        {
            "modalities": {"series": encoder, "vector": {"kind": "embedding", "encoder": "mlp", "dropout": 0.0}},
            "latent": {"dim": 8},
            "prior": {"components": 2},
            "fit": {"epochs": epochs, "batch_size": asked.batch, "patience": 10**6, "restarts": 1},
        }
    )
    torch.manual_seed(0)
    shapes = {"series": {"binned": (asked.bins, 2 * CHANNELS), "measured": (asked.bins,)}, "vector": {"vector": (WIDTH,)}}
    program = Program(config, shapes, 2).to(device)
    trainer = Timed(config, program, dataset, dataset.take(()), None)
    trainer.start()
    trainer.run()
    return trainer


def made(n: int, bins: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    observed = torch.rand(n, 2, generator=generator) > 0.3
    inputs: dict[str, Any] = {
        "series": {"binned": torch.randn(n, bins, 2 * CHANNELS, generator=generator), "measured": torch.ones(n, bins)},
        "vector": {"vector": torch.randn(n, WIDTH, generator=generator)},
    }
    ids = tuple(map(str, range(n)))
    labels = (inputs["series"]["binned"][:, :, 0].mean(1) + inputs["vector"]["vector"][:, 0] > 0).long()
    return Dataset(("series", "vector"), inputs, observed, labels, ids, ids)


if __name__ == "__main__":
    main()
