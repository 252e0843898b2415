"""How the time of a fit's step and its memory grow with rows N, modalities M, components K, latent width D and the batch.

    python benchmarks/scaling.py run --out scaling.jsonl [--repeats 3] [--device auto]      # goes on where it was cut
    python benchmarks/scaling.py table --from scaling.jsonl [--figure docs/scaling_growth.png]

One of the five changes at a time, the others stay at BASE. Vectors of 16 numbers, a perceptron each, a third of every modality missing,
the shipped defaults otherwise (Gaussian copula, shared components, normal guide, LSTM fusion). A step is all that a fit does between two
batches: rows taken, loss, gradient, check, optimiser. Every setting runs in a process of its own, so that its peak is its own: on a CPU
the high-water mark of the resident set less that after a fit of a few rows, on CUDA the most that was allocated. Time on a CPU is what
the process was given, one thread, which other load on the machine changes less than the time that passed. Rounds over all settings
are interleaved, and ratios are taken within a round, since that load comes and goes.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BASE = {"N": 10_000, "M": 3, "K": 3, "D": 16, "batch": 64}
VALUES = {
    "N": [1_000, 10_000, 100_000, 1_000_000],
    "M": [2, 3, 4, 6, 8],
    "K": [1, 3, 8],
    "D": [4, 16, 32, 64],
    "batch": [16, 64, 256, 1024],
}
SAID = {"N": "rows N", "M": "modalities M", "K": "components K", "D": "latent width D", "batch": "rows a batch"}
WIDTH, WARM, STEPS, SECONDS = 16, 4, 40, 3.0
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run_ = commands.add_parser("run")
    run_.add_argument("--out", type=Path, required=True)
    run_.add_argument("--repeats", type=int, default=3)
    run_.add_argument("--device", default="auto")
    table_ = commands.add_parser("table")
    table_.add_argument("--from", dest="source", type=Path, required=True)
    table_.add_argument("--figure", type=Path)
    one_ = commands.add_parser("one")
    one_.add_argument("setting")
    one_.add_argument("--device", default="auto")
    asked = parser.parse_args()
    if asked.command == "one":
        print(json.dumps(measure(json.loads(asked.setting), asked.device)))
    elif asked.command == "run":
        run(asked.out, asked.repeats, asked.device)
    else:
        records = read(asked.source)
        print(table(records))
        if asked.figure is not None:
            draw(records, asked.figure)


def settings() -> Iterator[dict[str, int]]:
    """BASE, then every value of each factor with the others at BASE."""
    yield dict(BASE)
    for factor, values in VALUES.items():
        yield from (BASE | {factor: value} for value in values if value != BASE[factor])


def run(out: Path, repeats: int, device: str) -> None:
    """Measure what `out` does not hold yet, a line each."""
    done = {(record["round"], json.dumps(record["setting"])) for record in read(out)} if out.exists() else set()
    for round_ in range(repeats):
        for setting in settings():
            if (round_, json.dumps(setting)) in done:
                continue
            command = [sys.executable, __file__, "one", json.dumps(setting), "--device", device]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            if ended.returncode:
                sys.exit(ended.stderr)
            record = {"round": round_, "setting": setting} | json.loads(ended.stdout.splitlines()[-1])
            with out.open("a") as lines:
                lines.write(json.dumps(record) + "\n")
            print(f"round {round_ + 1}  {setting}  {record['ms']:.1f} ms a step, {record['mib']:.0f} MiB", flush=True)


def read(path: Path) -> list[Record]:
    """Records of a file; a last line that was cut is left out."""
    lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
    return [json.loads(line) for line in lines]


# --- one setting, in its own process ----------------------------------------------------------------------------


def measure(setting: dict[str, int], asked: str) -> Record:
    """Median time of a step in ms, and the peak in MiB."""
    import torch

    from cm2pyro.inference.device import pick_device

    torch.set_num_threads(1)
    device = pick_device(asked)
    list(steps({"N": 64, "M": 2, "K": 2, "D": 2, "batch": 32}, 4, device))  # what libraries take, whatever the size
    before = _peak(device)
    times: list[float] = []
    for seconds in steps(setting, WARM + STEPS, device):
        times.append(seconds)
        if len(times) > WARM + 5 and sum(times) > SECONDS:
            break
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "ms": 1000 * statistics.median(times[WARM:]),
        "steps": len(times) - WARM,
        "mib": _peak(device) - before,
        "device": name,
        "threads": torch.get_num_threads(),
    }


def steps(setting: dict[str, int], count: int, device: Any) -> Iterator[float]:
    """Take steps; the seconds of each."""
    import torch

    from cm2pyro.config import Config
    from cm2pyro.data.dataset import Dataset
    from cm2pyro.inference.program import Program
    from cm2pyro.inference.step import make_optimiser, take_step

    torch.manual_seed(0)
    names, n = tuple(f"m{m}" for m in range(setting["M"])), setting["N"]
    raw = {
        "modalities": {name: {"kind": "embedding", "encoder": "mlp"} for name in names},
        "latent": {"dim": setting["D"]},
        "prior": {"components": setting["K"]},
    }
    config = Config.from_dict(raw)
    observed = torch.rand(n, len(names)) > 1 / 3
    inputs = {name: {"vector": torch.randn(n, WIDTH)} for name in names}
    ids = ("",) * n  # nobody asks for them
    rows = Dataset(names, inputs, observed, torch.arange(n) % 2, ids, ids)
    with device:
        program = Program(config, {name: {"vector": (WIDTH,)} for name in names}, 2).to(device).train()
    optimiser = make_optimiser(config, program)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    order, taken = torch.Generator().manual_seed(0), 0
    while taken < count:
        batches = rows.batches(setting["batch"], order)
        while taken < count:
            start = clock()
            batch = next(batches, None)
            if batch is None or len(batch) < setting["batch"]:
                break
            if isinstance(take_step(config, program, optimiser, batch.to(device), 1.0), str):
                raise SystemExit("a step was not finite")
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken += 1
            yield clock() - start


def _peak(device: Any) -> float:
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- what was found ---------------------------------------------------------------------------------------------


def ratios(records: list[Record], factor: str, key: str) -> dict[int, list[float]]:
    """Value of a factor -> its figure over that of BASE in the same round, a number a round."""
    of = {(record["round"], json.dumps(record["setting"])): record[key] for record in records}
    found: dict[int, list[float]] = {}
    for value in VALUES[factor]:
        pairs = [
            (of.get((round_, json.dumps(BASE | {factor: value}))), of.get((round_, json.dumps(BASE))))
            for round_ in sorted({record["round"] for record in records})
        ]
        found[value] = [one / base for one, base in pairs if one is not None and base]
    return found


def slopes(records: list[Record], factor: str, key: str) -> tuple[float, float]:
    """Of log figure on log value: least squares over all values, and between the two largest."""
    import numpy as np

    medians = {value: statistics.median(found) for value, found in ratios(records, factor, key).items() if found}
    x, y = np.log(list(medians)), np.log(list(medians.values()))
    return float(np.polyfit(x, y, 1)[0]), float((y[-1] - y[-2]) / (x[-1] - x[-2]))


def table(records: list[Record]) -> str:
    """Markdown: every setting, then the slopes. Times are the median ratio times the median of BASE, so that rounds weigh alike."""
    devices = sorted({f"{record['device']}, {record['threads']} thread" for record in records})
    base = [record for record in records if record["setting"] == BASE]
    ms, mib = (statistics.median(record[key] for record in base) for key in ("ms", "mib"))
    lines = [f"{'; '.join(devices)}; base {', '.join(f'{key} = {value:,}' for key, value in BASE.items())}", ""]
    lines += [
        "| changed | time to base (least to most) | rounds | ms a step | rows a second | memory to base | MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for factor, values in VALUES.items():
        time_ratio, memory_ratio = ratios(records, factor, "ms"), ratios(records, factor, "mib")
        for value in values:
            found = time_ratio[value]
            if value == BASE[factor] or not found:
                continue
            own, room = statistics.median(found), statistics.median(memory_ratio[value])
            rate = 1000 * (BASE | {factor: value})["batch"] / (own * ms)
            lines.append(
                f"| {factor} = {value:,} | {own:.2f} ({min(found):.2f} to {max(found):.2f}) | {len(found)} | {own * ms:.1f} | "
                f"{rate:,.0f} | {room:.2f} | {room * mib:.0f} |"
            )
    lines.append(f"| base | 1 | {len(base)} | {ms:.1f} | {1000 * BASE['batch'] / ms:,.0f} | 1 | {mib:.0f} |")
    lines += ["", "| slope of the logs | time, all values | last two | memory, all values | last two |", "|---|---|---|---|---|"]
    for factor in VALUES:
        shown = [f"{slope:.2f}" for key in ("ms", "mib") for slope in slopes(records, factor, key)]
        lines.append(f"| {SAID[factor]} | {' | '.join(shown)} |")
    return "\n".join(lines)


def draw(records: list[Record], path: Path) -> None:
    """Both figures against the factors, relative to BASE, on log-log axes."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    from cm2pyro.diagnostics.plots import GREY, legend_below, page, plain

    colors = dict(zip(VALUES, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"), strict=True))
    markers = dict(zip(VALUES, "os^Dv", strict=True))
    with page(path, "Growth of a fit's step, one factor at a time") as panels:
        for panel, key, what in zip(panels, ("ms", "mib"), ("time of a step", "peak memory"), strict=True):
            axes = panel.subplots()
            for factor in VALUES:
                found = {value: some for value, some in ratios(records, factor, key).items() if some}
                x = [value / BASE[factor] for value in found]
                y = [statistics.median(some) for some in found.values()]
                off = [
                    [middle - min(some) for middle, some in zip(y, found.values(), strict=True)],
                    [max(some) - middle for middle, some in zip(y, found.values(), strict=True)],
                ]
                label = f"{SAID[factor]} (base {BASE[factor]:,}), slope {slopes(records, factor, key)[0]:.2f}"
                axes.errorbar(x, y, yerr=off, color=colors[factor], marker=markers[factor], capsize=2.5, linewidth=1.4, label=label)
            axes.set(xscale="log", yscale="log", xlabel="factor, relative to base", ylabel=f"{what}, relative to base")
            low, high = axes.get_ylim()
            ends = axes.get_xlim()
            axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=0.9, label="proportional")
            axes.set(xlim=ends, ylim=(low, high))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())
            axes.set_title(what.capitalize(), fontsize=11, loc="left")
            axes.grid(alpha=0.25, which="both")
            plain(axes)
            legend_below(panel, axes, fontsize=8)


if __name__ == "__main__":
    main()
