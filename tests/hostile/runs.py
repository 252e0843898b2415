"""Run folders that somebody else has had in his hands: checkpoints, JSON, YAML, tokenizer."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, safe_open, save_file

from cm2pyro.inference import checkpoint as checkpoint_file
from tests.hostile.files import Trap
from tests.hostile.world import PREDICT, Case, Corpus, Spoil, cut, directory, edit_json, gone, pipe, put, swap

BEST = "run/checkpoints/best.safetensors"
RESUME = "fit config.yaml --data manifest.csv --out run --resume --set fit.epochs=2"


def tensors(change: Callable[[dict[str, torch.Tensor], dict[str, object]], object], name: str = BEST) -> Spoil:
    """A checkpoint changed in its tensors and in its header, and whole."""

    def spoil(folder: Path) -> None:
        with safe_open(folder / name, "pt") as opened:
            header = json.loads((opened.metadata() or {})["cm2pyro"])
        found = load_file(folder / name)
        change(found, header)
        checkpoint_file.write(folder / name, found, header)

    return spoil


def header(change: Callable[[dict[str, object]], object], name: str = BEST) -> Spoil:
    return tensors(lambda _, said: change(said), name)


def metadata(text: str, name: str = BEST) -> Spoil:
    def spoil(folder: Path) -> None:
        save_file(load_file(folder / name), folder / name, metadata={"cm2pyro": text})

    return spoil


def raw(head: object, data: bytes = b"", name: str = BEST) -> Spoil:
    text = json.dumps(head).encode() if not isinstance(head, bytes) else head
    return put(name, struct.pack("<Q", len(text)) + text + data)


def first(values: dict[str, torch.Tensor]) -> str:
    return next(name for name, value in values.items() if value.is_floating_point() and value.dim() == 2)


DEEP = "[" * 100_000
checkpoint = Corpus("run: checkpoint", PREDICT, 1, "best.safetensors")
checkpoint.add("gone", gone(BEST), "not there")
checkpoint.add("a folder", directory(BEST))
checkpoint.add("a pipe", pipe(BEST))
checkpoint.add("empty", put(BEST, b""), "cut short")
checkpoint.add("cut short", cut(BEST, 0.6), "cut short")
checkpoint.add("cut in the header", cut(BEST, 0.01), "cut short")
checkpoint.add("text", put(BEST, "weights"), "cannot be read")
checkpoint.add("zeros", put(BEST, bytes(3000)), "cannot be read")
checkpoint.add("a pickle", put(BEST, pickle.dumps(Trap())), "cannot be read")
checkpoint.add("a torch file with a pickle", lambda folder: torch.save({"a": Trap()}, folder / BEST), "cannot be read")
checkpoint.add("a header longer than the file", put(BEST, struct.pack("<Q", 1 << 62) + b"{}"), "cannot be read")
checkpoint.add("a header that is no JSON", raw(b"{]"), "cannot be read")
checkpoint.add("a header a hundred thousand deep", raw(DEEP.encode()), "cannot be read")
checkpoint.add("tensors beyond the file", raw({"a": {"dtype": "F32", "shape": [10], "data_offsets": [0, 40]}}), "cannot be read")
checkpoint.add(
    "tensors that overlap", raw({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)), "cannot be read"
)
checkpoint.add(
    "a shape that overflows", raw({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}, bytes(4)), "cannot be read"
)
checkpoint.add("of another program", raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "format")
checkpoint.add("of another version", header(lambda said: said.update(format=2)), "format 2", "expected 1")
checkpoint.add("a version that is a list", header(lambda said: said.update(format=[1])), "format")
checkpoint.add("what is said is a list", metadata("[]"), "best.safetensors")
checkpoint.add("what is said is null", metadata("null"), "best.safetensors")
checkpoint.add("what is said is no JSON", metadata("{"), "cannot be read")
checkpoint.add("what is said is a hundred thousand deep", metadata(DEEP), "best.safetensors")
checkpoint.add("architectures that are a list", header(lambda said: said.update(architectures=[1])), "best.safetensors")
checkpoint.add("a tensor lacks", tensors(lambda found, _: found.pop(first(found))), "does not fit")
checkpoint.add("a tensor too many", tensors(lambda found, _: found.update(trap=torch.ones(1))), "does not fit")
checkpoint.add("a tensor of another shape", tensors(lambda found, _: found.update({first(found): torch.ones(1)})), "does not fit")
checkpoint.add(
    "a tensor of whole numbers", tensors(lambda found, _: found.update({first(found): found[first(found)].to(torch.int8)})), "does not fit"
)
checkpoint.add("a tensor of nan", tensors(lambda found, _: found[first(found)].fill_(torch.nan)), "finite")
checkpoint.add("one infinite number", tensors(lambda found, _: found[first(found)].view(-1)[:1].fill_(torch.inf)), "finite")
checkpoint.add("no tensor at all", tensors(lambda found, _: found.clear()), "does not fit")

beside = Corpus("run: reference", PREDICT, 1, "reference.safetensors")
PLACE = "run/reference.safetensors"
beside.add("cut short", cut(PLACE, 0.5))
beside.add("a folder", directory(PLACE))
beside.add("another name", tensors(lambda found, _: found.update(x=found.pop("z")), PLACE), "expected z")
beside.add("nan", tensors(lambda found, _: found["z"].fill_(torch.nan), PLACE), "finite")
beside.add("another width", tensors(lambda found, _: found.update(z=torch.zeros(4, 7, 9)), PLACE))
beside.add("another number of rows", tensors(lambda found, _: found.update(observed=torch.ones(2, 7, dtype=torch.uint8)), PLACE))
beside.add("snapshots cut short", cut("run/snapshots.safetensors", 0.5), "snapshots.safetensors", anywhere=True)
beside.add(
    "snapshots of no epoch",
    tensors(lambda found, _: found.update({"x.y": torch.ones(1)}), "run/snapshots.safetensors"),
    "snapshots.safetensors",
    anywhere=True,
)

# --- JSON ----------------------------------------------------------------------------------------------------------------

RUBBISH = {
    "empty": "",
    "a brace": "{",
    "a list": "[]",
    "null": "null",
    "a number": "3",
    "text": '"x"',
    "latin-1": '{"a": "ü"}'.encode("latin-1"),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a hundred thousand deep": DEEP,
    "a number of five thousand digits": f'{{"a": {"9" * 5000}}}',
    "an empty object": "{}",
    "zeros": bytes(100),
}
jsons: list[Corpus] = []
for name in ("preprocessing.json", "holdout.json", "metrics.jsonl", "recalibration.json"):
    corpus = Corpus(f"run: {name}", PREDICT, 1, name)
    for what, content in RUBBISH.items():
        if (name, what) not in {("metrics.jsonl", "empty"), ("holdout.json", "an empty object")}:  # what an unfinished fit leaves
            corpus.add(what, put(f"run/{name}", content))
    corpus.add("a pipe", pipe(f"run/{name}"))
    corpus.add("a folder", directory(f"run/{name}"))
    if name != "recalibration.json":
        corpus.add("gone", gone(f"run/{name}"))
    jsons.append(corpus)

state = Corpus("run: what was learned", PREDICT, 1, "preprocessing.json")


def learned(change: Callable[[dict], object]) -> Spoil:
    def apply(content: object) -> None:
        assert isinstance(content, dict)
        change(content)

    return edit_json("run/preprocessing.json", apply)


def of(name: str) -> Callable[[dict], dict]:
    return lambda content: content["modalities"][name]


state.add("no modalities", learned(lambda c: c.pop("modalities")))
state.add("one modality less", learned(lambda c: c["modalities"].pop("ehr")), "ehr")
state.add("a modality that is a list", learned(lambda c: c["modalities"].update(ehr=[])))
state.add("classes that are a number", learned(lambda c: c.update(classes=3)))
state.add("one class less", learned(lambda c: c.update(classes=["0"])))
state.add("variables that are numbers", learned(lambda c: of("ehr")(c).update(names=3)))
state.add("a scale too short", learned(lambda c: of("ehr")(c)["grid"].update(scale=[1.0])))
state.add("a scale of words", learned(lambda c: of("ehr")(c)["grid"].update(scale=["x", "y"])))
state.add("a scale of zero", learned(lambda c: of("ehr")(c)["grid"].update(scale=[0.0, 0.0])))
state.add("a scale of nan", learned(lambda c: of("vector")(c).update(loc=[float("nan")] * 3)))
state.add("a vector too long", learned(lambda c: of("vector")(c).update(loc=[0.0] * 9, scale=[1.0] * 9)), "does not fit", anywhere=True)
state.add("a vector of a billion", learned(lambda c: of("ehr")(c).update(names=[f"v{i}" for i in range(100_000)])))
state.add("quantiles that fall", learned(lambda c: of("static")(c)["scaling"].update(columns=[[[2.0, 1.0], [0.0, 1.0]]])))
state.add("quantiles of two lengths", learned(lambda c: of("static")(c)["scaling"].update(columns=[[[1.0, 2.0], [0.0]]])))
state.add("categories that are a list", learned(lambda c: of("static")(c).update(categories=["f"])))
state.add("channels of a million", learned(lambda c: of("image")(c).update(channels=1_000_000)))
state.add("channels that are text", learned(lambda c: of("image")(c).update(channels="x")))
state.add("notes of a billion slots", learned(lambda c: of("note")(c).update(slots=1_000_000_000)))
state.add("notes of no slot", learned(lambda c: of("note")(c).update(slots=-1)))
state.add("no tokenizer", learned(lambda c: of("note")(c).pop("tokenizer")))
state.add("a tokenizer that is no JSON", learned(lambda c: of("note")(c).update(tokenizer="{")))
state.add("a tokenizer that is a list", learned(lambda c: of("note")(c).update(tokenizer=[1])))
state.add("a tokenizer a hundred thousand deep", learned(lambda c: of("note")(c).update(tokenizer=DEEP)))


def tokenizer(change: Callable[[dict], object]) -> Spoil:
    def apply(content: dict) -> None:
        made = json.loads(of("note")(content)["tokenizer"])
        change(made)
        of("note")(content)["tokenizer"] = json.dumps(made)

    return learned(apply)


def beyond(made: dict) -> None:
    vocabulary = made["model"]["vocab"]
    vocabulary.update({token: place + 10_000_000 for token, place in vocabulary.items()})


state.add("a tokenizer whose words are beyond the encoder's", tokenizer(beyond))
state.add("a tokenizer without a vocabulary", tokenizer(lambda made: made["model"].update(vocab={})))
state.add("a tokenizer of another kind", tokenizer(lambda made: made["model"].update(type="Magic")))
state.add("a tokenizer that ends in a word it has not", tokenizer(lambda made: made["post_processor"]["special_tokens"].clear()))

# --- the rest ------------------------------------------------------------------------------------------------------------

rest = Corpus("run", PREDICT, 1, "run")
rest.add("not there", lambda folder: (folder / "run").rename(folder / "moved"), "config.yaml")
rest.add("a file", lambda folder: ((folder / "run").rename(folder / "moved"), put("run", "x")(folder)), "config.yaml")
rest.add("an empty folder", lambda folder: ((folder / "run").rename(folder / "moved"), (folder / "run").mkdir()), "config.yaml")
rest.add("no config", gone("run/config.yaml"), "config.yaml")
rest.add("a config that is a pipe", pipe("run/config.yaml"), "config.yaml")
rest.add("a config that is a folder", directory("run/config.yaml"), "config.yaml")
rest.add("a config that calls", put("run/config.yaml", "!!python/object/apply:pathlib.Path [x]\n"), "config.yaml")
rest.add("a config of laughs", put("run/config.yaml", "a: &a [x]\nb: [*a]\n"), "alias")
rest.add("a config with another base", put("run/config.yaml", "base: ../config.yaml\n"), "base")
rest.add("a config of another width", swap("run/config.yaml", "dim: 2", "dim: 3"), "does not fit")
rest.add("a config of a trillion", swap("run/config.yaml", "dim: 2", "dim: 1000000000000"), "run")
rest.add(
    "a config with one modality more",
    swap("run/config.yaml", "modalities:", "modalities:\n  extra: {kind: embedding, encoder: mlp}"),
    "preprocessing.json",
)
rest.add("a config of a larger ensemble", swap("run/config.yaml", "ensemble: 1", "ensemble: 1000000000000"), "run")
rest.add("a config that names an encoder of the hub", swap("run/config.yaml", "encoder: bag", "encoder: some/where"), "run")
rest.add("a mask that is rubbish", put("run/mask.csv", b"\xff\xfe\0"), "mask.csv")
rest.add("a mask that is a pipe", pipe("run/mask.csv"), "mask.csv")
rest.add("the lock is a pipe", pipe("run/.lock"), ".lock", command=RESUME)
rest.add("nothing to resume", gone("run/checkpoints/last.safetensors"), "resume", command=RESUME)
rest.add("a manifest without the modality's length", lambda f: np.save(f / "p03.npy", np.ones(5)), "p03", "length 5", anywhere=True)

CASES: list[Case] = [case for corpus in (checkpoint, beside, *jsons, state, rest) for case in corpus.cases]
