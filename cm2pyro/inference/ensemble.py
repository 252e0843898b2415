"""An ensemble: several fits that differ in their seed alone, in one run folder."""

from pathlib import Path

from cm2pyro.config import Config

MEMBERS = "members"
_SEEDS = 2**32


def member_configs(config: Config) -> list[Config]:
    """The config of every member: member i (from 1) is the fit that seed `fit.seed + i − 1` gives alone, on the same rows."""
    fit = config.fit
    seeds = [(fit.seed + i) % _SEEDS for i in range(fit.ensemble)]
    return [config.model_copy(update={"fit": fit.model_copy(update={"seed": seed, "ensemble": 1})}) for seed in seeds]


def member_folder(run: Path, i: int) -> Path:
    """Where member i (from 0) keeps checkpoints and history: the first in the run folder itself, then members/2, members/3 …"""
    return run if i == 0 else run / MEMBERS / str(i + 1)
