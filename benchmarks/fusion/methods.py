"""All methods by name. A new network is one file and one line here."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.fusion.base import FusionNet, Options
from benchmarks.fusion.boosting import TRIALS, fit_boosting
from benchmarks.fusion.cm2_printed import CM2Printed
from benchmarks.fusion.concat import Concat
from benchmarks.fusion.daft import DAFT
from benchmarks.fusion.drfuse import DrFuse
from benchmarks.fusion.folds import Fold, Mask
from benchmarks.fusion.medfuse import MedFuse
from benchmarks.fusion.mmtm import MMTM
from benchmarks.fusion.ours import fit_ours
from benchmarks.fusion.tensor_fusion import LowRankFusion, TensorFusion
from benchmarks.fusion.train import predict_net, train_net
from benchmarks.fusion.truth import truth_of
from benchmarks.fusion.unified import Unified
from benchmarks.fusion.unimodal import Unimodal
from cm2pyro.errors import ConfigError
from cm2pyro.registry import nearest

Predictor = Callable[[Mask], NDArray[np.float64]]  # (n, M) mask of the fold's test rows -> (n,) probabilities

# What each network is, with options in place of its defaults where `python benchmarks/fusion/search.py` has chosen others.
NETS: dict[str, tuple[type[FusionNet], Options]] = {
    "concat": (Concat, {}),
    "concat_mask": (Concat, {"mask": True, "hidden": 0}),
    "tensor": (TensorFusion, {"width": 8}),
    "tensor_lowrank": (LowRankFusion, {"rank": 4}),
    "mmtm": (MMTM, {"ratio": 4}),
    "daft": (DAFT, {"ratio": 4}),
    "unified": (Unified, {"unimodal": 1.0}),
    "medfuse": (MedFuse, {"hidden": 64}),
    "drfuse": (DrFuse, {"weight": 1.0}),
    "cm2_printed": (CM2Printed, {"weight": 1e-6}),
}
# Passes over the rows as a multiple of the config's, chosen in the same way; 1 where none is named.
_FEWER, _MORE = 8 / 12, 20 / 12
PASSES = {
    "concat": _MORE, "concat_mask": _MORE, "unified": _MORE,
    "cm2_printed": _FEWER, "medfuse": _FEWER, "tensor": _FEWER, "tensor_lowrank": _FEWER,
}  # fmt: skip
BOOSTING: Options = TRIALS[2]  # of its trials the least log-loss in cross-validation on set A
OURS: dict[str, Options] = {
    "ours": {},
    "ours_ensemble": {"fit.ensemble": 5},
    "ours_independence": {"prior.copula.family": "independence"},
}
_ALONE, _DROPOUT, _TRUTH = "only_", "+dropout", "truth"
_RATE = 0.3  # of modality dropout, where the config has none


def known_methods(modalities: Sequence[str]) -> tuple[str, ...]:
    """Every method; each may end in `+dropout`, for modality dropout in its training."""
    return (*OURS, "boosting", *NETS, _TRUTH, *(f"{_ALONE}{name}" for name in modalities))


def check_method(method: str, modalities: Sequence[str]) -> None:
    """Raises ConfigError for a name that is not one."""
    names = known_methods(modalities)
    if method.removesuffix(_DROPOUT) not in names:
        raise ConfigError(f"--methods {method}: unknown; {nearest(method.removesuffix(_DROPOUT), names)}; '{_DROPOUT}' may follow")


def trials(method: str) -> tuple[Options, ...]:
    """The options that a method's search tries."""
    if method == "boosting":
        return TRIALS
    return NETS[method][0].trials if method in NETS else ({},)


def fit_method(method: str, fold: Fold, seed: int, options: Options | None = None) -> Predictor:
    """Fit a method on a fold.

    Args:
        method: a name, `+dropout` behind it for modality dropout at the config's rate, or 0.3 where that is 0.
        options: over the chosen ones; for networks also `epochs`, in place of the config's.
    """
    name = method.removesuffix(_DROPOUT)
    dropout = (fold.config.fit.modality_dropout or _RATE) if method.endswith(_DROPOUT) else 0.0
    if name == "boosting":
        return fit_boosting(fold, seed, dropout, options or BOOSTING)
    if name == _TRUTH:
        return truth_of(fold)
    if name in OURS:
        return fit_ours(fold, seed, dropout, OURS[name] | (options or {}))
    made: tuple[Any, Options] = (Unimodal, {"modality": name.removeprefix(_ALONE)}) if name.startswith(_ALONE) else NETS[name]
    chosen = dict(made[1] | (options or {}))
    epochs = chosen.pop("epochs", max(1, round(PASSES.get(name, 1.0) * fold.config.fit.epochs)))
    torch.manual_seed(seed)
    net = made[0](fold.setting, **chosen)
    train_net(net, fold.config.fit.model_copy(update={"epochs": epochs}), fold.train, fold.val, seed, dropout)
    return lambda mask: predict_net(net, fold.test.with_observed(fold.test.observed & torch.from_numpy(mask)))
