"""Kinds of modality by name. A new kind is one file and one line here."""

from cm2pyro.config import Modality
from cm2pyro.data.embedding import Embedding
from cm2pyro.data.image import Image
from cm2pyro.data.kind import Kind
from cm2pyro.data.tabular import Tabular
from cm2pyro.data.text import Text
from cm2pyro.data.timeseries import TimeSeries
from cm2pyro.registry import Registry

KINDS: Registry[type[Kind]] = Registry("kind of modality")
KINDS.register("timeseries", TimeSeries)
KINDS.register("tabular", Tabular)
KINDS.register("embedding", Embedding)
KINDS.register("image", Image)
KINDS.register("text", Text)


def make_kind(name: str, modality: Modality, views: tuple[str, ...]) -> Kind:
    """The reader of a modality, not yet fitted. Raises ConfigError: an unknown kind, an option of the wrong type."""
    where = f"modalities.{name}"
    keys = KINDS.keywords(modality.kind, f"{where}.kind")
    given = {key: value for key, value in modality.options.items() if key in keys}
    return KINDS.get(modality.kind)(name, modality, views, **KINDS.options(modality.kind, given, where))
