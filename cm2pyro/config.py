"""What a fit is told: validated, frozen, readable and writable as a file."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from cm2pyro.config_base import Open, Positive, Section
from cm2pyro.config_bayes import CopulaPrior, Guide, Latent, MixturePrior, Nuts, Priors, SitePrior
from cm2pyro.config_file import apply_override, read_yaml, write_yaml
from cm2pyro.config_fit import Fit
from cm2pyro.errors import ConfigError
from cm2pyro.foreign import is_place
from cm2pyro.registry import describe, leaves, nearest, one_line, refuse_values

__all__ = [
    "Alignment",
    "Config",
    "CopulaPrior",
    "Decoders",
    "Fit",
    "Fusion",
    "Guide",
    "Latent",
    "Missingness",
    "MixturePrior",
    "Modality",
    "Nuts",
    "Open",
    "Priors",
    "Section",
    "SitePrior",
    "Task",
]

_BINS = 10_000  # a grid with more would not fit into memory
_NAMES = {"encoder", "family", "families", "dist", "kind", "model"}  # keys whose value is a name in a registry
_NOT_INPUTS = ("sample_id", "subject_id", "split")  # columns of the manifest that no modality may be


class Task(Section):
    """What is predicted."""

    type: Literal["binary", "multiclass", "multilabel", "regression"] = "binary"
    label: str = "label"
    labels: Annotated[list[str], Field(min_length=1)] | None = None  # multilabel: the columns, each 0, 1 or empty
    classes: Annotated[list[str], Field(min_length=2)] | None = None  # multiclass; by default those found in training

    @model_validator(mode="after")
    def _fits_its_type(self) -> "Task":
        for key, owner in (("classes", "multiclass"), ("labels", "multilabel")):
            names = getattr(self, key)
            if names is None:
                continue
            if self.type != owner:
                raise ValueError(f"{key} belongs to type {owner}, this one is {self.type}; remove it")
            if len(set(names)) < len(names) or not all(names):
                raise ValueError(f"{key} holds a name twice or an empty one; expected distinct names; correct it")
        if self.type == "multilabel" and self.labels is None:
            raise ValueError("type multilabel needs the columns of its labels; write for example labels: [a, b]")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The manifest's columns that hold labels."""
        return tuple(self.labels) if self.labels is not None else (self.label,)


class Modality(Open):
    """One modality: where it lives and what encodes it. Further keys are the encoder's options.

    A modality lives in a manifest column (`column`, by default its own name), in several numeric manifest columns
    (`columns`), or in one table for all samples (`table`).
    """

    kind: Literal["timeseries", "image", "text", "tabular", "embedding"]
    encoder: str
    column: str | None = None
    table: str | None = None
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    hours: Positive | None = None  # length of the window: timeseries 48 if not given, text all notes
    bin_hours: Positive | None = None  # timeseries: width of a bin, 2 if not given

    @model_validator(mode="after")
    def _one_place(self) -> "Modality":
        if self.column is not None and self.table is not None:
            raise ValueError("column and table both say where the modality lives; keep one")
        if self.kind not in ("timeseries", "text") and self.hours is not None:
            raise ValueError(f"hours belongs to kinds timeseries and text, this one is {self.kind}; remove it")
        if self.kind != "timeseries" and self.bin_hours is not None:
            raise ValueError(f"bin_hours belongs to kind timeseries, this one is {self.kind}; remove it")
        if self.columns is not None and self.kind not in ("tabular", "embedding"):
            raise ValueError(f"columns belongs to kinds tabular and embedding, this one is {self.kind}; remove it")
        if self.columns is not None and self.column is not None:
            raise ValueError("column and columns both say where the modality lives; keep one")
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ValueError("columns names one twice; keep one")
        if self.kind == "timeseries" and (self.hours or 48) / (self.bin_hours or 2) > _BINS:
            raise ValueError(f"hours / bin_hours asks for more than {_BINS} bins; widen bin_hours")
        return self


class Alignment(Section):
    """A penalty between the guide's latents of observed modalities, beside the prior or in its place; an ablation."""

    kind: Literal["none", "cosine", "kl"] = "none"
    weight: Positive = 0.1


class Fusion(Open):
    """How the latents of all modalities become the features of the outcome. Further keys are the fusion's options."""

    kind: str = "lstm"


class Decoders(Open):
    """What the latents of observed modalities are asked to explain. Further keys are the decoder's options."""

    kind: str = "none"
    weight: Positive = 1.0  # of the features' log-likelihood
    only: Annotated[list[str], Field(min_length=1)] | None = None  # modalities that have one; by default all


class Missingness(Open):
    """Why something is missing, and what is hidden on purpose. Further keys are options of the model."""

    model: str = "ignorable"
    mask: str | None = None  # a mechanism such as mar:0.5@labs,gases that hides modalities of training and validation rows


class Config(Section):
    """Everything that a fit is told."""

    task: Task = Task()
    modalities: Annotated[dict[str, Modality], Field(min_length=1)]
    latent: Latent = Latent()
    prior: MixturePrior = MixturePrior()
    priors: Priors = Priors()
    guide: Guide = Guide()
    nuts: Nuts = Nuts()
    alignment: Alignment = Alignment()
    fusion: Fusion = Fusion()
    decoders: Decoders = Decoders()
    missingness: Missingness = Missingness()
    fit: Fit = Fit()

    @model_validator(mode="after")
    def _names(self) -> "Config":
        for name in self.modalities:
            if not name.isidentifier():
                raise ValueError(f"modalities: '{name}' is not a name; use letters, digits and underscores")
        outcome = {self.task.label, *(self.task.labels or [])}
        for name, modality in self.modalities.items():
            if modality.table is not None:
                continue  # its own columns are known only when it is read
            for column in modality.columns or [modality.column or name]:
                if column in outcome or column in _NOT_INPUTS:
                    what = "the label of the task" if column in outcome else "not an input"
                    raise ValueError(f"modalities.{name}: column '{column}' is {what}; name another column")
        return self

    @model_validator(mode="after")
    def _steps(self) -> "Config":
        update = self.prior.copula.update
        if update != "joint" and self.guide.globals not in ("delta", "nuts"):
            remedy = "set guide.globals to delta, or prior.copula.update to joint"
            raise ValueError(f"prior.copula.update: {update} gives point estimates, guide.globals is {self.guide.globals}; {remedy}")
        return self

    @model_validator(mode="after")
    def _chains(self) -> "Config":
        globals_ = self.guide.globals
        if globals_ == "delta" or (globals_ != "nuts" and not self.fit.settle):
            return self
        asker = "guide.globals: nuts" if globals_ == "nuts" else f"fit.settle with guide.globals {globals_}"
        remedy = "guide.globals to normal" if globals_ == "nuts" else "fit.settle to false"
        needed = (
            ("guide.missing", self.guide.missing, "conditional"),
            ("prior.coupling", self.prior.coupling, "shared"),
            ("missingness.model", self.missingness.model, "ignorable"),
        )
        for key, found, expected in needed:
            if found != expected:
                raise ValueError(f"{asker} needs {key} {expected}, found {found}; set it, or {remedy}")
        return self

    @model_validator(mode="after")
    def _ablations(self) -> "Config":
        prior = self.prior
        if prior.kind == "standard" and (prior.components > 1 or prior.copula.family != "independence" or self.guide.globals != "delta"):
            raise ValueError(
                "prior.kind: standard has one component, no copula and nothing to learn; "
                "set prior.components to 1, prior.copula.family to independence and guide.globals to delta"
            )
        points = self.guide.local == "delta" or any(modality.encoder == "identity" for modality in self.modalities.values())
        if self.alignment.kind == "kl" and points:
            raise ValueError(
                "alignment.kind: kl compares distributions; with guide.local delta or encoder identity latents are points; set it to cosine"
            )
        return self

    @classmethod
    def from_dict(cls, raw: Any, where: str = "config") -> "Config":
        """Check a config that was read from `where`. Raises ConfigError, one line."""
        if not isinstance(raw, dict):
            raise ConfigError(f"{where}: expected a mapping with the keys {', '.join(cls.model_fields)}; found {type(raw).__name__}")
        _refuse_unknown(cls, raw, where)
        refuse_values(raw, where)
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(f"{where}: {describe(error)}") from error
        except (ArithmeticError, RecursionError) as error:  # a number or a nesting beyond all bounds
            raise ConfigError(f"{where}: holds a value that is out of range ({one_line(error)}); write a smaller one") from error

    @classmethod
    def from_file(cls, path: str | Path, overrides: tuple[str, ...] = (), based: bool = True) -> "Config":
        """Read a YAML file and apply overrides of the form `a.b=c`; `based`: it may name a `base`. Raises ConfigError, one line."""
        raw = read_yaml(path, based)
        for override in overrides:
            apply_override(raw, override)
        return cls.from_dict(raw, str(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, which `from_dict` turns into an equal config."""
        return self.model_dump(mode="json")

    def foreign(self) -> dict[str, str]:
        """Key -> `package.module:Class`, for every class of another package that it names; nothing is imported."""
        words = ((key, [part for part in key.split(".") if not part.isdigit()][-1:], value) for key, value in leaves(self.to_dict()))
        return {key: value for key, word, value in words if _NAMES.issuperset(word) and is_place(value)}

    def tables(self) -> tuple[str, ...]:
        """Tables beside the manifest that modalities are read from."""
        return tuple(dict.fromkeys(m.table for m in self.modalities.values() if m.table is not None))

    def file_columns(self) -> tuple[str, ...]:
        """Columns of the manifest whose cells may name a file."""
        return tuple(m.column or name for name, m in self.modalities.items() if m.table is None and m.columns is None)

    def to_file(self, path: str | Path) -> None:
        """Write the resolved config, defaults included, atomically."""
        write_yaml(path, self.to_dict())


def _refuse_unknown(model: type[BaseModel], raw: Any, where: str, prefix: str = "") -> None:
    """Refuse keys that no section knows, naming the nearest known one (also when it belongs to another section)."""
    if not isinstance(raw, dict) or (model.model_config.get("extra") == "allow" and model is not Priors):
        return
    for key, value in raw.items():
        field = model.model_fields.get(str(key))
        if field is None and model is Priors and str(key).startswith("copula_"):
            continue  # a site of a mixture of families, which the model checks
        if field is None:
            full = f"{prefix}{one_line(key, 60)}"
            close = difflib.get_close_matches(str(key), [p.rsplit(".", 1)[-1] for p in _paths(Config)], n=1, cutoff=0.8)
            elsewhere = [p for p in _paths(Config) if close and p.rsplit(".", 1)[-1] == close[0]]
            if elsewhere and str(key) not in model.model_fields and close[0] not in model.model_fields:
                raise ConfigError(f"{where}: unknown key '{full}'; did you mean '{elsewhere[0]}'? remove or rename it")
            raise ConfigError(f"{where}: unknown key '{full}'; {nearest(str(key), model.model_fields)}")
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            _refuse_unknown(inner, value, where, f"{prefix}{key}.")


def _paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    paths = []
    for name, field in model.model_fields.items():
        paths.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            paths += _paths(field.annotation, f"{prefix}{name}.")
    return paths
