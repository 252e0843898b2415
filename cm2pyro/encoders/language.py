"""Encoders of notes: transformers of Hugging Face, from scratch or pretrained, and a small mean of token vectors."""

import json
from contextlib import redirect_stderr
from functools import cache
from io import StringIO
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cm2pyro.config_base import Fraction
from cm2pyro.data.columns import Views
from cm2pyro.data.pretrained import cannot_be_had, folder_of, quiet, source_of
from cm2pyro.data.text import Vocabulary
from cm2pyro.encoders.base import Encoder
from cm2pyro.encoders.tuning import Still, Tune, tuned
from cm2pyro.errors import ConfigError
from cm2pyro.registry import one_line

Size = Annotated[int, Field(gt=0, le=8192)]
Pool = Literal["mean", "attention", "last"]


class NoteEncoder(Encoder):
    """Several notes per sample, each encoded alone, then pooled: their mean, a learned weighting, or the latest.

    A subclass sets `width` and encodes notes one by one in `read`.
    """

    views: ClassVar[tuple[str, ...]] = ("tokens",)

    def __init__(self, shapes: dict[str, tuple[int, ...]], width: int, pool: Pool) -> None:
        super().__init__(shapes)
        self.width = width
        self.pool = pool
        self.weigh = nn.Linear(width, 1) if pool == "attention" else None

    def read(self, tokens: Tensor, there: Tensor) -> Tensor:
        """(P, L) token ids, 0 where `there` (P, L) is false, to (P, width); at least one token of each note is there."""
        raise NotImplementedError

    def forward(self, inputs: Views) -> Tensor:
        tokens = inputs["tokens"].long()  # (n, S, L), −1 where there is none
        has = (tokens >= 0).any(-1)  # (n, S)
        if self.training:
            features = self._chosen(tokens, has)
        else:
            # Slot by slot with every row at its place, so that the rounding does not depend on what other rows have.
            blank = torch.zeros(len(tokens), self.width, device=tokens.device)
            features = torch.stack([self._read(tokens[:, s]) if bool(has[:, s].any()) else blank for s in range(has.shape[1])], 1)
        return self._pooled(features, has)

    def _chosen(self, tokens: Tensor, has: Tensor) -> Tensor:
        """The notes that are there, cut to the longest of them."""
        notes = tokens[has]
        if not len(notes):
            return torch.zeros(*has.shape, self.width, device=tokens.device)
        longest = int((notes >= 0).sum(-1).amax())
        read = self._read(notes[:, :longest])
        return read.new_zeros(*has.shape, self.width).index_put((has,), read)

    def _read(self, notes: Tensor) -> Tensor:
        there = notes >= 0
        # A note without tokens belongs to a row whose result is dropped; it attends to one token, since softmax over none is not a number.
        there = there | (~there.any(-1, keepdim=True) & (torch.arange(notes.shape[-1], device=notes.device) == 0))
        return self.read(notes.clamp_min(0), there)

    def _pooled(self, features: Tensor, has: Tensor) -> Tensor:
        """(n, S, width) and (n, S) to (n, width)."""
        if features.shape[1] == 1:
            return features[:, 0]
        if self.pool == "last":
            latest = (torch.arange(has.shape[1], device=has.device) * has).amax(1)
            return features[torch.arange(len(features), device=has.device), latest]
        score = torch.zeros_like(features[..., :1]) if self.weigh is None else self.weigh(features)
        # A row without notes weighs its empty slots alike; its result is dropped.
        score = score.masked_fill(~(has | ~has.any(1, keepdim=True))[..., None], -torch.inf)
        return (score.softmax(1) * features).sum(1)


class Bag(NoteEncoder):
    """The mean of token vectors, through one hidden layer: the small encoder, trains from scratch in seconds."""

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        *,
        hidden: Size = 64,
        dropout: Fraction = 0.1,
        vocabulary: Vocabulary = 8000,
        pool: Pool = "mean",
    ) -> None:
        super().__init__(shapes, hidden, pool)
        self.vectors = nn.Embedding(vocabulary, hidden)
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout))

    def read(self, tokens: Tensor, there: Tensor) -> Tensor:
        weight = there[..., None].float()
        out: Tensor = self.layers((self.vectors(tokens) * weight).sum(1) / weight.sum(1).sqrt())
        return out

    def networks(self) -> list[nn.Module]:
        return [self.layers]


class HuggingFace(NoteEncoder):
    """An encoder of Hugging Face; the features are the mean over a note's tokens (`token: first`: its first token).

    Options: `weights` none, hub, or a folder with config, weights and tokenizer; `tune` says how much is trained
    (`encoders.tuning`). With `none` the architecture stays and the weights and the tokenizer start from scratch.
    """

    source: ClassVar[str] = ""

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        *,
        weights: str = "none",
        vocabulary: Vocabulary = 8000,
        tune: Tune = "all",
        token: Literal["mean", "first"] = "mean",
        pool: Pool = "mean",
        dropout: Fraction = 0.0,
        architecture: dict[str, Any] | None = None,
    ) -> None:
        network, remarks = _network(self.source, weights, self.scratch(vocabulary, architecture))
        config: Any = network.config
        super().__init__(shapes, _width(network, self.source), pool)
        self.remarks = remarks
        self.architecture = json.loads(config.to_json_string(use_diff=False))
        self._check_length(network, shapes["tokens"][1])
        self.token = token
        self.network = tuned(network, _layers(network), tune)
        self._still = Still(self.network)
        self.dropout = nn.Dropout(dropout)

    def scratch(self, vocabulary: int, architecture: dict[str, Any] | None) -> dict[str, Any]:
        """Architecture for weights that start from scratch: the one given, else that of the source."""
        if architecture is not None:
            return architecture
        from transformers import AutoConfig

        where = f"encoder {self.source}"
        folder = folder_of(self.source, where)
        try:
            found: dict[str, Any] = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
        except Exception as error:  # the file system and the parsers each have their own
            raise cannot_be_had(self.source, where, error) from error
        return found | {"vocab_size": vocabulary, "pad_token_id": 0}

    def _check_length(self, network: nn.Module, length: int) -> None:
        most = int(getattr(network.config, "max_position_embeddings", None) or length)
        for name, part in network.named_modules():
            # RoBERTa's family counts positions from the one after padding's own.
            if name.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx is not None:
                most = part.num_embeddings - part.padding_idx - 1
        if length > most:
            raise ConfigError(f"encoder {self.source}: max_tokens is {length}, and it reads at most {most}; lower max_tokens")

    def read(self, tokens: Tensor, there: Tensor) -> Tensor:
        self._still(self.network, len(tokens))
        states = self.network(input_ids=tokens, attention_mask=there.long()).last_hidden_state
        if self.token == "first":
            return self.dropout(states[:, 0])
        weight = there[..., None].to(states.dtype)
        out: Tensor = self.dropout((states * weight).sum(1) / weight.sum(1))
        return out

    def networks(self) -> list[nn.Module]:
        return [self.network]


class TinyBERT(HuggingFace):
    """TinyBERT (Jiao et al., 2020): 4 layers, 312 wide, 12 heads; smaller ones where `layers`, `hidden`, `heads` say so."""

    source: ClassVar[str] = "tinybert"

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        *,
        weights: str = "none",
        vocabulary: Vocabulary = 8000,
        layers: Size = 4,
        hidden: Size = 312,
        heads: Size = 12,
        tune: Tune = "all",
        token: Literal["mean", "first"] = "mean",
        pool: Pool = "mean",
        dropout: Fraction = 0.0,
        architecture: dict[str, Any] | None = None,
    ) -> None:
        if hidden % heads:
            raise ConfigError(f"encoder tinybert: hidden is {hidden} and heads {heads}; expected a multiple; change one of them")
        if weights != "none" and (layers, hidden, heads) != (4, 312, 12):
            raise ConfigError("encoder tinybert: layers, hidden and heads are those of the weights; leave them out, or write weights: none")
        architecture = architecture or {
            "model_type": "bert",
            "vocab_size": vocabulary,
            "num_hidden_layers": layers,
            "hidden_size": hidden,
            "num_attention_heads": heads,
            "intermediate_size": round(hidden * 1200 / 312),
            "max_position_embeddings": max(512, shapes["tokens"][1]),
            "pad_token_id": 0,
        }
        super().__init__(
            shapes, weights=weights, vocabulary=vocabulary, tune=tune, token=token, pool=pool, dropout=dropout, architecture=architecture
        )


def _network(source: str, weights: str, architecture: dict[str, Any]) -> tuple[nn.Module, tuple[str, ...]]:
    """The network, and what to say of it."""
    from transformers import AutoConfig, AutoModel

    where = f"encoder {source}"
    pretrained = source_of(source, weights, where)
    if pretrained is None:
        made = dict(architecture)
        try:
            config = AutoConfig.for_model(made.pop("model_type"), **made)
            network: nn.Module = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigError(f"{where}: its architecture cannot be made ({one_line(error, 120)}); correct it") from error
        return _without_pooler(network), (f"{source} starts from scratch (weights: none)",)
    folder = folder_of(pretrained, where)
    try:
        # Single precision, whatever the file has: what reads the features is in it.
        with quiet(), redirect_stderr(StringIO()):  # it draws a bar there, also where there is no terminal
            network, info = AutoModel.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False, weights_only=True
            )
    except Exception as error:  # as above
        raise cannot_be_had(pretrained, where, error) from error
    absent = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if absent:
        raise ConfigError(
            f"{where}: the weights in {pretrained} are not those of its config.json: {one_line(absent[0], 80)} is not among them "
            f"({len(absent)} tensors lack); expected one network's files"
        )
    return _without_pooler(network), ()


def _width(network: nn.Module, source: str) -> int:
    """Of the features, found by trying. Raises ConfigError for a network that does not turn tokens alone into states."""
    training = network.training
    tokens = torch.ones(1, 2, dtype=torch.long, device=next(network.parameters()).device)
    try:
        with torch.no_grad():
            return int(network.eval()(input_ids=tokens, attention_mask=tokens).last_hidden_state.shape[-1])
    except Exception as error:  # each network has its own way to miss what it was not given
        raise ConfigError(
            f"encoder {source}: does not turn notes into features ({one_line(error, 120)}); expected an encoder of text such as BERT"
        ) from error
    finally:
        network.train(training)


def _without_pooler(network: nn.Module) -> nn.Module:
    # A head on the first token that is never read here, and would stay at its random start.
    if getattr(network, "pooler", None) is not None:
        setattr(network, "pooler", None)  # noqa: B010
    return network


def _layers(network: nn.Module) -> list[nn.Module]:
    """The longest list of layers inside, from input to output."""
    lists = [list(part) for part in network.modules() if isinstance(part, nn.ModuleList)]
    return max(lists, key=len, default=list(network.children()))


@cache
def hugging_face(name: str) -> type[HuggingFace] | None:
    """The encoder for a name on the hub or a folder: one with a slash; None for other names."""
    if "/" not in name:
        return None
    return type("HuggingFace", (HuggingFace,), {"source": name, "__doc__": HuggingFace.__doc__})
