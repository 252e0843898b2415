"""What a training step costs, and which share of it is spent outside the encoders.

    python benchmarks/step_cost.py [--batch 16] [--size 224] [--steps 5] [--device auto] [--precision bfloat16] [--compile]

ResNet-34, a two-layer LSTM and TinyBERT (4 layers, 312 wide, 128 tokens), from scratch, D = 32, K = 3, a third of each modality
missing. The rest is a whole step, forward and backward, in which the encoders return features that are there already: projections,
copula mixture, imputation, fusion, outcome, ELBO. Medians over the steps, all of them timed in turn. On CUDA the card's name and the
most memory that was allocated are printed as well.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from cm2pyro.config import Config
from cm2pyro.data.columns import Views
from cm2pyro.data.dataset import Batch
from cm2pyro.encoders import Encoder
from cm2pyro.inference.device import compile_encoders, pick_device
from cm2pyro.inference.program import Program

BINS, CHANNELS, TOKENS, VOCABULARY = 24, 76, 128, 8000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    device = pick_device(asked.device)
    program = Program(config(asked.size, asked.precision), shapes(asked.size), 2).to(device).train()
    if asked.compile:
        compile_encoders(program.guide.encoders())
    optimiser = torch.optim.AdamW(program.parameters(), lr=1e-3)
    batch = made(asked.batch, asked.size).to(device)

    def synchronised(work: Callable[[], object]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def step() -> None:
        optimiser.zero_grad()
        program.loss(batch).backward()

    names, encoders = program.guide.names, program.guide.encoders()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=asked.precision == "bfloat16")

    def read(encoder: Encoder, seen: Views) -> Tensor:
        with autocast:
            return encoder(seen)

    rows = [batch.observed[:, m].nonzero()[:, 0] for m in range(len(names))]
    views: list[Views] = [{view: x[r] for view, x in batch.inputs[name].items()} for name, r in zip(names, rows, strict=True)]
    ready = [read(encoder, seen).detach().requires_grad_() for encoder, seen in zip(encoders, views, strict=True)]

    def rest() -> None:
        for encoder, features in zip(encoders, ready, strict=True):
            encoder.forward = lambda inputs, features=features: features  # type: ignore[misc, method-assign]
        step()
        for encoder in encoders:
            del encoder.forward

    times: dict[str, list[float]] = {name: [] for name in ("step", "rest", "optimiser", *names)}
    for _ in range(2):  # the first one allocates; a compiler may look at the second again
        step()
    for _ in range(asked.steps):
        for name, encoder, seen in zip(names, encoders, views, strict=True):
            times[name].append(synchronised(lambda encoder=encoder, seen=seen: read(encoder, seen).float().square().mean().backward()))  # type: ignore[misc]
        times["rest"].append(synchronised(rest))
        times["step"].append(synchronised(step))
        times["optimiser"].append(synchronised(optimiser.step))
    median = {name: statistics.median(values) for name, values in times.items()}
    millions = sum(p.numel() for p in program.parameters()) / 1e6
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device}, {torch.get_num_threads()} threads"
    how = f"{asked.precision}{', compiled' if asked.compile else ''}"
    print(f"{name}, {how}, batch {asked.batch}, pictures {asked.size} x {asked.size}, medians of {asked.steps}")
    for name, r in zip(names, rows, strict=True):
        print(f"  {name:<6} forward and backward {1000 * median[name] / len(r):8.2f} ms a sample ({len(r)} of {asked.batch} rows have it)")
    print(f"  step   forward and backward {1000 * median['step']:8.1f} ms")
    print(f"  rest   forward and backward {1000 * median['rest']:8.1f} ms, {median['rest'] / median['step']:.1%} of the step")
    print(f"  optimiser (AdamW)           {1000 * median['optimiser']:8.1f} ms, {millions:.1f} million parameters")
    whole = median["step"] + median["optimiser"]
    print(f"  {asked.batch / whole:.1f} samples a second")
    if device.type == "cuda":
        print(f"  peak memory {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")


def config(size: int, precision: str) -> Config:
    return Config.from_dict(
        {
            "modalities": {
                "ehr": {"kind": "timeseries", "encoder": "lstm", "table": "t.csv"},
                "image": {"kind": "image", "encoder": "resnet34", "size": size},
                "note": {"kind": "text", "encoder": "tinybert", "max_tokens": TOKENS, "vocabulary": VOCABULARY},
            },
            "fit": {"precision": precision},
        }
    )


def shapes(size: int) -> dict[str, dict[str, tuple[int, ...]]]:
    side = round(size * 256 / 224)
    return {"ehr": {"binned": (BINS, CHANNELS), "measured": (BINS,)}, "image": {"pixels": (1, side, side)}, "note": {"tokens": (1, TOKENS)}}


def made(n: int, size: int) -> Batch:
    """Random rows, two thirds of which have each modality."""
    side = round(size * 256 / 224)
    observed = torch.stack([(torch.arange(n) + m) % 3 > 0 for m in range(3)], 1)
    inputs: dict[str, Views] = {
        "ehr": {"binned": torch.randn(n, BINS, CHANNELS), "measured": torch.ones(n, BINS)},
        "image": {"pixels": torch.randint(0, 256, (n, 1, side, side)).to(torch.uint8)},
        "note": {"tokens": torch.randint(4, VOCABULARY, (n, 1, TOKENS))},
    }
    return Batch(inputs, observed, torch.arange(n) % 2, torch.ones(n, dtype=torch.bool), torch.arange(n), 10 * n)


if __name__ == "__main__":
    main()
