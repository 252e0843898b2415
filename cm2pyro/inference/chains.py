"""Draws of the global sites by NUTS: made once the encoders stand still, kept chain by chain, read."""

from collections.abc import Iterator, MutableMapping
from pathlib import Path

from tqdm import tqdm

from cm2pyro import logs
from cm2pyro.config import Config
from cm2pyro.data.dataset import Dataset
from cm2pyro.errors import CheckpointError
from cm2pyro.inference import checkpoint
from cm2pyro.inference.frozen import frozen_potential
from cm2pyro.inference.mcmc import Chains, sample_chains
from cm2pyro.inference.program import Program


def draw_chains(program: Program, config: Config, train: Dataset, folder: Path | None) -> Chains:
    """Draw the global sites by NUTS, the encoders as they are.

    With a folder each chain is written as it ends: a fit that is killed goes on with the next one, to the same draws, and one that
    had all of them draws none.
    """
    nuts = config.nuts
    weights = checkpoint.digest(program.state_dict())
    made = None if folder is None else read_chains(folder, weights)
    if made is not None:
        return made
    kept = None if folder is None else _Kept(folder, weights, nuts.chains)
    potential = frozen_potential(program, train, config.fit.seed)
    missing = nuts.chains - (0 if kept is None else len(kept))
    with tqdm(total=missing * (nuts.warmup + nuts.draws), unit="iteration", desc="NUTS", leave=False, disable=None) as bar:  # on a terminal
        seed, update = config.fit.seed, lambda *_: bar.update()
        made = sample_chains(potential, program.values(), nuts.chains, nuts.warmup, nuts.draws, seed, update, nuts.target_accept, kept)
    logs.event("nuts", chains=nuts.chains, draws=nuts.draws, divergences=made.divergences)
    if folder is not None:
        write_chains(folder, made, weights)
    if kept is not None:
        kept.clear()
    return made


def write_chains(folder: Path, drawn: Chains, weights: str) -> None:
    """Write draws of the global sites. weights: `digest` of the fit's weights, given which they were drawn."""
    _write(_path(folder), drawn, weights)


def read_chains(folder: Path, weights: str) -> Chains | None:
    """Draws of the global sites given these weights, None where there are none. Raises CheckpointError."""
    return _read(_path(folder), weights)


class _Kept(MutableMapping[int, Chains]):
    """Chains that are done while others are not, each in a file."""

    def __init__(self, folder: Path, weights: str, chains: int) -> None:
        self.folder, self.weights = folder, weights
        self._parts: dict[int, Chains] = {}
        for i in range(chains):
            try:
                part = _read(self._place(i), weights)
            except CheckpointError:  # damaged: it is drawn again
                continue
            if part is not None:
                self._parts[i] = part

    def _place(self, i: int) -> Path:
        return self.folder / "checkpoints" / f"chain-{i + 1}.safetensors"

    def __setitem__(self, i: int, part: Chains) -> None:
        _write(self._place(i), part, self.weights)
        self._parts[i] = part

    def __getitem__(self, i: int) -> Chains:
        return self._parts[i]

    def __delitem__(self, i: int) -> None:
        del self._parts[i]
        self._place(i).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[int]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _path(folder: Path) -> Path:
    return folder / "checkpoints" / "chains.safetensors"


def _write(path: Path, drawn: Chains, weights: str) -> None:
    checkpoint.write(path, drawn.values, {"divergences": drawn.divergences, "warmup": drawn.warmup, "weights": weights})


def _read(path: Path, weights: str) -> Chains | None:
    if not path.is_file():
        return None
    tensors, header = checkpoint.read(path)
    if header.get("weights") != weights:  # of the run before it went on
        return None
    checkpoint.check_finite(tensors, path)
    return Chains(tensors, [int(n) for n in header.get("divergences", [])], int(header.get("warmup", 0)))
