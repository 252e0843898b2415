"""Encoders by name: views of one modality -> features. A new encoder is one file and one line here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from cm2pyro.config import Config, Modality
from cm2pyro.data.kinds import KINDS, make_kind
from cm2pyro.encoders.base import Encoder
from cm2pyro.encoders.language import Bag, TinyBERT, hugging_face
from cm2pyro.encoders.lstm import LSTM, SummaryLSTM
from cm2pyro.encoders.mlp import MLP, Identity, Summary
from cm2pyro.encoders.module import ModuleEncoder
from cm2pyro.encoders.transformer import Transformer
from cm2pyro.encoders.vision import CNN, ResNet34, backbone, backbones
from cm2pyro.errors import ConfigError
from cm2pyro.foreign import Contract
from cm2pyro.registry import Registry, nearest, one_line

__all__ = ["ENCODERS", "Encoder", "Modules", "Restored", "check_encoders", "check_weights", "make_encoder", "register_encoder"]


def _named_elsewhere(name: str) -> type[Encoder] | None:
    return hugging_face(name) or backbone(name)


ENCODERS: Registry[type[Encoder]] = Registry(
    "encoder",
    _named_elsewhere,
    ", any classification network of torchvision, any encoder of Hugging Face as organisation/name or ./folder",
    backbones,
    Contract(Encoder, "cm2pyro.encoders.Encoder", ("shapes",), ("views", "forward")),
)
ENCODERS.register("lstm", LSTM)
ENCODERS.register("transformer", Transformer)
ENCODERS.register("summary", Summary)
ENCODERS.register("summary_lstm", SummaryLSTM)
ENCODERS.register("mlp", MLP)
ENCODERS.register("identity", Identity)
ENCODERS.register("cnn", CNN)
ENCODERS.register("resnet34", ResNet34)
ENCODERS.register("bag", Bag)
ENCODERS.register("tinybert", TinyBERT)


def register_encoder(name: str, encoder: type[Encoder] | str) -> None:
    """Let configs name an encoder of your own; text says where it is, `package.module:Class`.

    Raises:
        ConfigError: the name is taken, or the class is no encoder.
    """
    ENCODERS.register_foreign(name, encoder)


Modules = Mapping[str, nn.Module]
Restored = Mapping[str, dict[str, Any]]
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
        _options(name, modality)
        views[name] = cls.views
        make_kind(name, modality, cls.views)
    return views


def check_weights(config: Config) -> None:
    """Before any data is read: the files that `weights` names are there. A run that is loaded does not need them.

    Raises:
        ConfigError: one is not.
    """
    for name, modality in config.modalities.items():
        weights = modality.options.get("weights", "none")
        if weights not in ("none", "hub") and not Path(str(weights)).exists():
            raise ConfigError(
                f"modalities.{name}.weights: '{one_line(weights)}' is not there; expected none, hub, or a path relative to {Path.cwd()}"
            )


def _options(name: str, modality: Modality) -> dict[str, Any]:
    """Options of the modality's encoder; those of its kind are left to it. Raises ConfigError for one that neither knows."""
    where = f"modalities.{name}"
    own, kinds = ENCODERS.keywords(modality.encoder, f"{where}.encoder"), KINDS.keywords(modality.kind)
    for key in modality.options:
        if key not in own | kinds:
            known = {*own, *kinds, *type(modality).model_fields}
            raise ConfigError(
                f"{where}.{one_line(key, 60)}: unknown key for kind {modality.kind} and encoder '{modality.encoder}'; {nearest(key, known)}"
            )
    if "weights" not in own and modality.options.get("weights", "none") != "none":
        # The kind has the option too, for its tokenizer, which then would not be that of the encoder.
        raise ConfigError(f"{where}.weights: encoder '{modality.encoder}' always starts from scratch; remove it, or name another encoder")
    return ENCODERS.options(modality.encoder, {key: value for key, value in modality.options.items() if key in own}, where)


def make_encoder(
    config: Config, name: str, shapes: dict[str, tuple[int, ...]], modules: Modules = _NONE, restored: Restored | None = None
) -> Encoder:
    """The encoder of a modality.

    Args:
        restored: for a run whose weights are read from its checkpoint: modality -> architecture of its encoder, for those that
            have one. What `weights` names is then neither needed nor looked at.

    Raises:
        ConfigError: pretrained weights that cannot be had; a given latent's length is not latent.dim.
    """
    modality = config.modalities[name]
    if name in modules:
        return ModuleEncoder(shapes, name, modules[name], next(iter(shapes)), make_kind(name, modality, tuple(shapes)))
    options = _options(name, modality)
    if restored is not None and "weights" in options:
        options["weights"] = "none"
        options |= {"architecture": restored[name]} if name in restored else {}
        if name not in restored and "/" in modality.encoder:  # or it would be fetched
            raise ConfigError(f"modalities.{name}.encoder: the checkpoint has no architecture of '{one_line(modality.encoder)}'; fit again")
    encoder = ENCODERS.get(modality.encoder)(shapes, **options)
    if encoder.given and encoder.width != config.latent.dim:
        raise ConfigError(
            f"modalities.{name}.encoder: '{modality.encoder}' gives latents of length {encoder.width}, "
            f"and latent.dim is {config.latent.dim}; set latent.dim to {encoder.width} or use encoder mlp"
        )
    return encoder
