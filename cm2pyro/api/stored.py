"""Saving a fit as a run folder, and loading one."""

import copy
from collections.abc import Container
from pathlib import Path
from typing import Any, Self

import pyro
import torch

from cm2pyro.api.base import Base, Say, silent
from cm2pyro.config import Config
from cm2pyro.diagnostics import summary, typicality
from cm2pyro.encoders import Modules, Restored
from cm2pyro.errors import CheckpointError, ConfigError
from cm2pyro.inference import checkpoint, run
from cm2pyro.inference.chains import read_chains, write_chains
from cm2pyro.inference.device import pick_device
from cm2pyro.inference.ensemble import member_configs, member_folder
from cm2pyro.inference.program import Program
from cm2pyro.inference.recalibration import Recalibration
from cm2pyro.models import Given
from cm2pyro.registry import UnknownNameError, one_line

_UNKNOWN = "a name that a program has registered is known to programs which do the same (register_encoder, …) before they load the run"


class Stored(Base):
    """What is written to a run folder and read from it. See `CM2`."""

    def save(self, out: str | Path, overwrite: bool = False) -> None:
        """Write a fit that was kept in memory as a run folder."""
        folder, programs = Path(out), self.programs
        run.check_folder(folder, resume=False, overwrite=overwrite)
        with run.locked(folder):
            run.clear(folder, overwrite)
            run.write_setup(
                folder, self.config, self._state(), self.holdout, str(next(programs[0].parameters()).device), self.preparation.tokenizers()
            )
            run.write_mask(folder, self.mask)
            for i, program in enumerate(programs):
                header = {"epoch": len(self.history), "settled": program.settled, "architectures": program.architectures()}
                checkpoint.write(checkpoint.best(member_folder(folder, i)), program.state_dict(), header)
                if program.chains is not None:
                    write_chains(member_folder(folder, i), program.chains, checkpoint.digest(program.state_dict()))
            run.write_history(folder, self.history)
            self.snapshots.write(folder)
            self._write_results(folder)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "cpu",
        say: Say = silent,
        encoders: Modules | None = None,
        priors: Given | None = None,
        trust_code: bool = False,
    ) -> Self:
        """Read a run folder. Raises CheckpointError if it is none or incomplete.

        Args:
            encoders: the modules that the fit was given from Python, if any; their weights come from the run.
            priors: those that it was given from Python, if any.
            trust_code: import classes of other packages that the run's config names (`package.module:Class`); else it is refused.
        """
        folder = Path(path)
        config, state = run.read_config(folder, trust_code), run.read_json(folder / run.PREPROCESSING)
        _check_given(folder, state, encoders or {}, priors or {})
        try:
            loaded = cls(config, say, encoders, priors)
        except ConfigError as error:
            remedy = f"; {_UNKNOWN}" if isinstance(error, UnknownNameError) else ""
            raise CheckpointError(f"{folder / run.CONFIG}: {error}{remedy}") from error
        try:
            loaded.preparation.load(state)
        except CheckpointError as error:
            raise CheckpointError(f"{folder}/{error}") from error
        chosen = pick_device(device)
        for i, member in enumerate(member_configs(config)):
            if i and not checkpoint.best(member_folder(folder, i)).is_file():
                say(f"{folder}: holds {i} of {config.fit.ensemble} members, the fit was cut; their mean is used; fit --resume goes on")
                break
            loaded._programs.append(loaded._read_program(folder, i, member, chosen))
        loaded.history = run.read_history(folder)
        loaded.snapshots.read(folder)
        loaded.reference = typicality.Reference.read(folder, len(loaded.names), config.latent.dim)
        loaded.recalibration = Recalibration.read(folder)
        loaded.holdout = run.read_holdout(folder)
        loaded.mask = run.read_mask(folder)
        return loaded

    def _read_program(self, folder: Path, i: int, config: Config, device: torch.device) -> Program:
        """Member `i` of a run, in evaluation, with its draws of the global sites if it has any."""
        place = member_folder(folder, i)
        path = checkpoint.best(place)
        tensors, header = checkpoint.read(path)
        architectures = header.get("architectures", {})
        if not isinstance(architectures, dict) or not all(isinstance(made, dict) for made in architectures.values()):
            raise CheckpointError(f"{path}: its architectures are not by modality; fit again with --overwrite")
        try:
            program = self._new_program(config, copy.deepcopy(self.encoders) if i else self.encoders, device, architectures)
        except ConfigError as error:
            raise CheckpointError(f"{folder}: {error}") from error
        if header.get("settled"):  # else the fit was cut before
            program.settle()
        checkpoint.load_module(program, tensors, path)
        program.chains = read_chains(place, checkpoint.digest(tensors))
        if program.chains is None and config.guide.globals == "nuts":
            self.say(f"{folder}: holds no draws of the global sites, the fit was cut; points are used; fit --resume goes on")
        program.margins_only = bool(header.get("apart", False))  # a fit that was cut before its second step
        return program.eval()

    def _new_program(self, config: Config, encoders: Modules, device: torch.device, restored: Restored | None = None) -> Program:
        pyro.set_rng_seed(config.fit.seed)  # of torch, and of numpy and Python for encoders from outside
        shapes = {name: kind.shapes() for name, kind in self.preparation.kinds.items()}
        try:
            with device:  # priors are made where the fit runs
                return Program(config, shapes, len(self.classes), encoders, restored, self.priors).to(device)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "alloc" not in str(error) and "torage size" not in str(error):
                raise
            raise ConfigError(
                f"the model does not fit into memory ({one_line(error, 120)}); lower latent.dim, prior.components or sizes of encoders"
            ) from error

    def _state(self) -> dict[str, Any]:
        return self.preparation.state() | {"encoders": sorted(self.encoders), "priors": sorted(self.priors)}

    def _write_results(self, folder: Path) -> None:
        if self.reference is not None:
            self.reference.write(folder)
        if self.recalibration is not None:
            self.recalibration.write(folder)
        summary.write(folder, self.mixture(), self.preparation)


def _check_given(folder: Path, state: dict[str, Any], encoders: Container[str], priors: Container[str]) -> None:
    """Raises CheckpointError: the fit was given a module or a prior from Python that is not given again."""
    for name in state.get("encoders", []):
        if name not in encoders:
            remedy = f"pass encoders={{'{name}': module}}"
            raise CheckpointError(f"{folder}: modality {name} was fitted with a module given from Python; {remedy}")
    for name in state.get("priors", []):
        if name not in priors:
            raise CheckpointError(f"{folder}: site {name} had a prior given from Python; pass priors={{'{name}': distribution}}")
