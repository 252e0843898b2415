"""Encoders by name: views of one modality -> features. A new encoder is one file and one line here."""

from collections.abc import Mapping

from torch import nn

from cm2pyro.config import Config
from cm2pyro.data.kinds import KINDS
from cm2pyro.encoders.base import Encoder
from cm2pyro.encoders.lstm import LSTM, SummaryLSTM
from cm2pyro.encoders.mlp import MLP, Identity, Summary
from cm2pyro.encoders.module import ModuleEncoder
from cm2pyro.errors import ConfigError
from cm2pyro.registry import Registry, nearest

__all__ = ["ENCODERS", "Encoder", "Modules", "check_encoders", "make_encoder"]

ENCODERS: Registry[type[Encoder]] = Registry("encoder")
ENCODERS.register("lstm", LSTM)
ENCODERS.register("summary", Summary)
ENCODERS.register("summary_lstm", SummaryLSTM)
ENCODERS.register("mlp", MLP)
ENCODERS.register("identity", Identity)


Modules = Mapping[str, nn.Module]
_NONE: Modules = {}


def check_encoders(config: Config, modules: Modules = _NONE) -> dict[str, tuple[str, ...]]:
    """Check every modality's encoder and its options; return the views that each reads.

    Args:
        modules: modality -> a module given from Python, which takes the place of the config's encoder and reads the
            first view of its kind.

    Raises:
        ConfigError: unknown encoder, an encoder that cannot read that kind, an unknown or wrong option.
    """
    for name in modules:
        if name not in config.modalities:
            raise ConfigError(f"encoders['{name}']: the config has no such modality; {nearest(name, config.modalities)}")
    views: dict[str, tuple[str, ...]] = {}
    for name, modality in config.modalities.items():
        where = f"modalities.{name}"
        offered = KINDS.get(modality.kind, f"{where}.kind").offers
        if name in modules:
            views[name] = offered[:1]
            continue
        cls = ENCODERS.get(modality.encoder, f"{where}.encoder")
        if not set(cls.views) <= set(offered):
            fitting = [n for n in ENCODERS.names() if set(ENCODERS.get(n).views) <= set(offered)]
            raise ConfigError(f"{where}.encoder: '{modality.encoder}' cannot read kind {modality.kind}; use one of {', '.join(fitting)}")
        ENCODERS.options(modality.encoder, modality.options, where, type(modality).model_fields)
        views[name] = cls.views
    return views


def make_encoder(config: Config, name: str, shapes: dict[str, tuple[int, ...]], modules: Modules = _NONE) -> Encoder:
    """The encoder of a modality. Raises ConfigError if a given latent's length is not latent.dim."""
    modality = config.modalities[name]
    if name in modules:
        return ModuleEncoder(shapes, name, modules[name], next(iter(shapes)))
    options = ENCODERS.options(modality.encoder, modality.options, f"modalities.{name}", type(modality).model_fields)
    encoder = ENCODERS.get(modality.encoder)(shapes, **options)
    if encoder.given and encoder.width != config.latent.dim:
        raise ConfigError(
            f"modalities.{name}.encoder: '{modality.encoder}' gives latents of length {encoder.width}, "
            f"and latent.dim is {config.latent.dim}; set latent.dim to {encoder.width} or use encoder mlp"
        )
    return encoder
