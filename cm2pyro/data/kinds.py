"""Kinds of modality by name. A new kind is one file and one line here."""

from cm2pyro.data.embedding import Embedding
from cm2pyro.data.kind import Kind
from cm2pyro.data.tabular import Tabular
from cm2pyro.data.timeseries import TimeSeries
from cm2pyro.registry import Registry

KINDS: Registry[type[Kind]] = Registry("kind of modality")
KINDS.register("timeseries", TimeSeries)
KINDS.register("tabular", Tabular)
KINDS.register("embedding", Embedding)
