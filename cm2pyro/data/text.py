"""Kind `text`: one or several notes per sample."""

from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from tokenizers import Tokenizer

from cm2pyro.config import Modality
from cm2pyro.data import tokenizer as tokens
from cm2pyro.data.columns import Columns, Sparse
from cm2pyro.data.kind import Kind, Learner
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.notes import Notes, read_notes
from cm2pyro.data.pretrained import source_of
from cm2pyro.data.sampled import RowSample

Length = Annotated[int, Field(ge=4, le=4096)]
Count = Annotated[int, Field(ge=1, le=256)]
Vocabulary = Annotated[int, Field(ge=300, le=1_000_000)]  # 256 bytes and the special tokens must fit


class Text(Kind):
    """Notes as token ids, (notes, max_tokens) per sample, -1 where there is no token.

    A cell holds the note itself or names a .txt file, or a table of several (.csv, .parquet: `text`, if known `hours`); or one
    table for all samples holds `sample_id`, `text` and if known `hours`. Several notes are in the order of time. Of a note
    the first `max_tokens` tokens are read (`keep: end`: the last); of more than `max_notes` notes the latest.

    The tokenizer is trained on the training notes (`weights: none`), at most `vocabulary` tokens, or is that of the pretrained
    encoder; it is saved with the run.
    """

    offers = ("tokens",)
    tokenizer: Tokenizer
    slots: int

    def __init__(
        self,
        name: str,
        modality: Modality,
        views: tuple[str, ...],
        *,
        max_tokens: Length = 128,
        max_notes: Count = 8,
        keep: Literal["start", "end"] = "start",
        vocabulary: Vocabulary = 8000,
        weights: str = "none",
    ) -> None:
        super().__init__(name, modality, views)
        self.max_tokens, self.max_notes, self.keep_end = max_tokens, max_notes, keep == "end"
        self.vocabulary, self.weights = vocabulary, weights

    def read(self, manifest: Manifest) -> Notes:
        notes = read_notes(manifest, self.name, self.modality, self.keep_end)
        self.remarks = notes.remarks
        return notes

    def observed(self, raw: Notes) -> NDArray[np.bool_]:
        return np.bincount(raw.rows, minlength=raw.n) > 0

    def learner(self, limit: int | None = None) -> Learner:
        return _TextLearner(self, limit)

    def transform(self, raw: Notes) -> Columns:
        ids, cut = tokens.encode(self.tokenizer, raw.texts, self.max_tokens, self.keep_end)
        counts = np.bincount(raw.rows, minlength=raw.n)
        if cut:
            which = "last" if self.keep_end else "first"
            self.remarks.append(
                f"modality {self.name}: {cut:,} of {len(ids):,} notes have more than {self.max_tokens} tokens; the {which} are read"
            )
        if (counts > self.slots).any():
            many = int((counts > self.slots).sum())
            self.remarks.append(f"modality {self.name}: {many:,} samples have more than {self.slots} notes; the latest are read")
        place = np.where(counts > 0, np.cumsum(counts > 0) - 1, -1)
        values = np.full((int((counts > 0).sum()), self.slots, self.max_tokens), tokens.PAD, dtype=np.int32)
        # Number of each note among those of its sample; the latest `slots` are kept.
        number = np.arange(len(raw.rows)) - (np.cumsum(counts) - counts)[raw.rows]
        slot = number - np.maximum(counts[raw.rows] - self.slots, 0)
        kept = slot >= 0
        values[place[raw.rows[kept]], slot[kept]] = ids[kept]
        return {"tokens": Sparse(torch.from_numpy(values), torch.from_numpy(place), fill=tokens.PAD)}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"tokens": (self.slots, self.max_tokens)}

    def state(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.to_str(), "slots": self.slots}

    def load(self, state: dict[str, Any]) -> None:
        try:
            self.tokenizer = tokens.restored(state["tokenizer"])
        except ValueError as error:
            raise ValueError(f"tokenizer of {self.name}: {error}") from error
        known = self.tokenizer.get_vocab(with_added_tokens=True).values()
        if self.weights == "none" and max(known, default=self.vocabulary) >= self.vocabulary:
            raise ValueError(f"tokenizer of {self.name}: expected words with numbers from 0 to {self.vocabulary - 1}")
        self.slots = int(state["slots"])
        if not 1 <= self.slots <= self.max_notes:
            raise ValueError(f"{self.slots} notes, expected 1 to {self.max_notes}")


class _TextLearner(Learner):
    def __init__(self, kind: Text, limit: int | None) -> None:
        self.kind, self.most = kind, 1
        self.where = f"modalities.{kind.name}"
        self.source = source_of(kind.modality.encoder, kind.weights, self.where)
        self.sample = RowSample(None if limit is None else limit // 4)  # notes take more memory than numbers

    def add(self, raw: Notes, rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
        used = np.isin(raw.rows, rows)
        self.most = max(self.most, int(np.bincount(raw.rows[used], minlength=1).max()))
        if self.source is None:
            key = np.zeros(raw.n, dtype=np.uint64)
            key[rows] = keys
            # Row by row, so that a sample takes all notes of a patient or none.
            seen = np.flatnonzero(np.isin(np.arange(raw.n), raw.rows[used]))
            ends = np.searchsorted(raw.rows, seen, side="right")
            notes = np.empty(len(seen), dtype=object)
            notes[:] = [raw.texts[start:end] for start, end in zip(np.searchsorted(raw.rows, seen), ends, strict=True)]
            self.sample.add(key[seen], {"notes": notes})

    def finish(self) -> None:
        if self.source is None:
            notes = self.sample.values("notes")
            texts = [] if notes is None else [text for some in notes for text in some]
            self.kind.tokenizer = tokens.train(texts, self.kind.vocabulary)
        else:
            self.kind.tokenizer = tokens.pretrained(self.source, self.where)
        self.kind.slots = min(self.kind.max_notes, self.most)
