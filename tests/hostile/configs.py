"""Configs: YAML that is none, that unfolds, that runs code; keys and values out of range; weights with code in them."""

import os
import pickle
from pathlib import Path

import torch

from tests.hostile.files import Trap
from tests.hostile.world import CHECK, CONFIG, FIT, Case, Corpus, Spoil, config, directory, doing, gone, link, pipe, put

text = Corpus("config", FIT, 2, "config.yaml")


def of(content: str | bytes) -> Spoil:
    return put("config.yaml", content)


def more(lines: str) -> Spoil:
    return of(CONFIG + lines + "\n")


# --- not YAML ------------------------------------------------------------------------------------------------------------

NUMBERS = {
    "hexadecimal of five thousand digits": "0x" + "f" * 5000,
    "octal, to some": "010",
    "a time of day, to some": "1:30",
    "underscores": "1_0",
}
for name, number in NUMBERS.items():
    text.add(f"a number in {name}", config("epochs: 1", f"epochs: {number}"), "line 13", "decimal")
text.add("a real number in underscores", config("seed: 0", "lr: 1_0.5"), "line 13", "decimal")
text.add("an override in hexadecimal", lambda f: None, "decimal", command=f"{FIT} --set fit.epochs=0x{'f' * 5000}", anywhere=True)
text.add("a billion threads", lambda f: None, "--threads", command=f"{FIT} --threads 1000000000", anywhere=True)
text.add("not there", gone("config.yaml"), "No such file")
text.add("a folder", directory("config.yaml"), "directory")
text.add("a pipe that nobody writes to", pipe("config.yaml"), "not a regular file")
text.add("a link to a device without end", link("config.yaml", "/dev/zero"), "not a regular file")
text.add("a link to itself", link("config.yaml", "config.yaml"), "link")
text.add("empty", of(""), "mapping")
text.add("a comment alone", of("# nothing\n"), "mapping")
text.add("a list", of("- a\n- b\n"), "mapping")
text.add("a word", of("hello\n"), "mapping")
text.add("null", of("null\n"), "mapping")
text.add("latin-1", of("task: {label: Müde}\n".encode("latin-1")), "UTF-8")
text.add("UTF-16", of(CONFIG.encode("utf-16")), "UTF-8")
text.add("NUL bytes", more("\0"), "YAML")
text.add("control characters", more("x: \x1b[2J"), "YAML")
text.add("zeros", of(bytes(3000)), "YAML")
text.add("a tab for an indent", of("task:\n\ttype: binary\n"), "line 2")
text.add("a brace that never closes", of("task: {type: binary\n"), "YAML")
text.add("a quote that never closes", of('task: {type: "binary}\n'), "YAML")
text.add("two documents", of(CONFIG + "---\n" + CONFIG), "YAML")
text.add("a merge conflict", of("<<<<<<< HEAD\n" + CONFIG + "=======\n"), "config.yaml")
text.add("JSON cut short", of('{"task": {"type": "bin'), "YAML")
text.add("a pickle", of(pickle.dumps(Trap())), "config.yaml")
text.add("a megabyte of one word", of("a" * 5_000_000), "bytes")
text.add(
    "forty gigabytes of nothing",
    lambda folder: (of("")(folder), os.truncate(folder / "config.yaml", 40 << 30)),
    "bytes",
    bomb=True,
)

# --- what unfolds or runs ------------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
text.add("a billion laughs", of(LAUGHS), "alias", bomb=True)
text.add("an alias of itself", of("task: &t [*t]\n"), "alias")
text.add("a merge of an alias", of("x: &x {type: binary}\ntask: {<<: *x}\n"), "alias")
text.add("brackets a hundred thousand deep", of("[" * 100_000), "deep")
text.add("braces a hundred thousand deep", of("{a: " * 20_000), "deep")
text.add("a hundred deep, and closed", of("x: " + "[" * 100 + "]" * 100), "deep")
text.add("indents a thousand deep", of("".join(" " * i + "a:\n" for i in range(300))), "deep")
text.add("dashes ten thousand deep", of("- " * 10_000 + "x"), "deep")
for name, code in {
    "a call": "!!python/object/apply:pathlib.Path [trapped]",
    "a module": "!!python/module:os",
    "a name": "!!python/name:os.system",
    "an object": "!!python/object/new:type {args: [x, [], {}]}",
    "a tuple": "!!python/tuple [1, 2]",
    "a tag of one's own": "!mine x",
    "bytes": "!!binary aGVsbG8=",
    "a set": "!!set {a, b}",
    "a date": "2150-01-01",
    "a date that does not exist": "2150-13-45",
    "a time that does not exist": "2150-01-01 25:61:61",
    "an integer that is a word": "!!int x",
}.items():
    text.add(f"a value that is {name}", config("label: label", f"label: {code}"), "config.yaml")
    text.add(f"a key that is {name}", more(f"? {code}\n: 1"), "config.yaml")

# --- keys ----------------------------------------------------------------------------------------------------------------

text.add("a key twice", more("task: {type: binary}"), "'task' stands twice")
text.add("a key twice inside", config("label: label", "label: label, label: other"), "'label' stands twice")
text.add("an unknown key", more("fits: {epochs: 1}"), "did you mean 'fit'")
text.add("an unknown key inside", config("epochs: 1", "epoch: 1"), "did you mean")
text.add("a key of a megabyte", more("a" * 1000 + ": 1"), "unknown key")
text.add("a key of escapes", more('"\\e[2J": 1'), "unknown key")
text.add("a key of line breaks", more('"a\\nb": 1'), "unknown key")
text.add("a key that is a number", more("1: 1"), "unknown key")
text.add("a key that is null", more("~: 1"), "unknown key")
text.add("a key that is a list", more("? [a, b]\n: 1"), "config.yaml")
text.add("a modality that is no name", config("ehr: {", '"e hr": {'), "not a name")
text.add("a modality that is a script", config("ehr: {", '"<script>alert(1)</script>": {'), "not a name")
text.add("a modality that climbs out", config("ehr: {", '"../../x": {'), "not a name")
text.add("a dunder", more("__class__: {x: 1}"), "unknown key")
text.add("no modalities", of("task: {type: binary}\n"), "modalities")
text.add("modalities as a list", of("modalities: [a, b]\n"), "modalities")
text.add("modalities empty", of("modalities: {}\n"), "modalities")
text.add("a section that is a number", more("guide: 3"), "guide")
text.add("a base that is a list", more("base: [x]"), "base")
text.add("a base that is not there", more("base: nowhere.yaml"), "nowhere.yaml", anywhere=True)
text.add("a base that is a folder", more("base: ."), anywhere=True)
text.add("a base that is the file itself", more("base: config.yaml"), "circle")
text.add("a base with a NUL", more('base: "a\\0b"'), anywhere=True)

# --- values --------------------------------------------------------------------------------------------------------------

for value in (".nan", ".inf", "-.inf", "1e999", "-1", "0", "true", "null", "x", "[1]", "{a: 1}", "9" * 5000, "1e30", "0x1F", "1_0"):
    if value not in ("0x1F", "1_0"):
        text.add(f"epochs {value[:10]}", config("epochs: 1", f"epochs: {value}"), "epochs" if len(value) < 100 else "config.yaml")
for value in (".nan", ".inf", "1e400", "0", "-1e-3", "true", "x", "[1]"):
    text.add(f"lr {value}", config("seed: 0", f"seed: 0, lr: {value}"), "lr")
for value in ("-1", "1.5", "1e30", "true", "9" * 30):
    text.add(f"seed {value[:8]}", config("seed: 0", f"seed: {value}"), "seed")
text.add("a latent of a trillion", config("dim: 2", "dim: 1000000000000"), "latent.dim")
text.add("a batch of 1e18", config("batch_size: 8", "batch_size: 1000000000000000000000"), "config.yaml")
text.add("a hundred million components", config("components: 2", "components: 100000000000"), "prior.components")
text.add("a hidden layer of a trillion", config("hours: 48, hidden: 4", "hours: 48, hidden: 1000000000000"), "ehr.hidden")
text.add("a hidden layer of a billion", config("hours: 48, hidden: 4", "hours: 48, hidden: 1000000000"), "memory", anywhere=True)
text.add("bins of a second in a thousand years", config("hours: 48", "hours: 8760000"), "bins")
text.add("a window infinite", config("hours: 48", "hours: .inf"), "hours")
text.add("a picture of a million a side", config("size: 16, resize: 16", "size: 1000000"), "size", anywhere=True)
text.add("an encoder that is a path", config("encoder: lstm", "encoder: ../../x.py"), "encoder", anywhere=True)
text.add("an encoder that is a module", config("encoder: lstm", "encoder: 'os:system'"), "encoder", anywhere=True)
text.add("a prior that is code", more("priors: {locs: {dist: __import__, loc: 0}}"), "locs", anywhere=True)
text.add("a prior that is no distribution", more("priors: {locs: {dist: enable_validation}}"), "locs", anywhere=True)
text.add("a table with a NUL", config("gases.csv", '"gases\\0.csv"'), anywhere=True, command=CHECK, code=1)
text.add("a label that is an input", config("label: label", "label: age"), "age")
text.add("a label that is the id", config("label: label", "label: sample_id"), "p00", anywhere=True, code=1)

# --- the command line ----------------------------------------------------------------------------------------------------

line = Corpus("config by --set", FIT, 2)


def typed(name: str, override: str, *says: str) -> None:
    line.add(name, lambda folder: None, *says, command=f"{FIT} --set {override}")


typed("no value", "fit.epochs", "--set fit.epochs")
typed("no key", "=1", "--set =1")
typed("an empty part", "fit..epochs=1", "--set fit..epochs=1")
typed("a key below a number", "fit.epochs.x=1", "--set fit.epochs.x=1")
typed("brackets deep", "fit.epochs=" + "[" * 1000, "deep")
typed("an alias", "fit.epochs=*a", "--set")
typed("a call", "fit.epochs=!!python/name:os.system", "--set")
typed("an unknown key", "fit.epoch=1", "epoch")
typed("nan", "fit.lr=.nan", "lr")

# --- weights -------------------------------------------------------------------------------------------------------------

weights = Corpus("config: weights", FIT, 2, "weights")


def of_picture(file: str) -> Spoil:
    return config("encoder: cnn, size: 16, resize: 16, width: 2", f"encoder: resnet18, size: 32, weights: {file}")


def of_note(folder: str) -> Spoil:
    return config("encoder: bag, max_tokens: 16, vocabulary: 300, hidden: 4", f"encoder: tinybert, max_tokens: 16, weights: {folder}")


def bert(file: str, content: bytes) -> Spoil:
    """A folder such as those of the hub, with a small network's config and weights of one's own making."""

    def spoil(folder: Path) -> None:
        (folder / "bert").mkdir()
        shape = '"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 30'
        (folder / "bert" / "config.json").write_text(f'{{"model_type": "bert", {shape}}}')
        vocabulary = '{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}}'
        (folder / "bert" / "tokenizer.json").write_text(vocabulary)
        (folder / "bert" / file).write_bytes(content)
        of_note("bert")(folder)

    return spoil


def pickled(folder: Path) -> None:
    torch.save({"conv1.weight": Trap()}, folder / "trap.pth")
    of_picture("trap.pth")(folder)


def pickled_bert(folder: Path) -> None:
    bert("README.md", b"")(folder)
    torch.save({"embeddings.word_embeddings.weight": Trap()}, folder / "bert" / "pytorch_model.bin")


weights.add("not there", of_picture("nowhere.pth"), "nowhere.pth")
weights.add("a pickle in a .pth", pickled, "trap.pth")
weights.add("a pickle alone", doing(of_picture("trap.pth"), put("trap.pth", pickle.dumps(Trap()))), "trap.pth")
weights.add("text", doing(of_picture("w.pth"), put("w.pth", "weights")), "w.pth")
weights.add("safetensors that are none", doing(of_picture("w.safetensors"), put("w.safetensors", b"\xff" * 64)), "w.safetensors")
weights.add("a pickle in a folder of BERT", pickled_bert, "bert", anywhere=True)
weights.add("a folder of BERT, safetensors that are none", bert("model.safetensors", b"\xff" * 64), "bert", anywhere=True)
weights.add("a folder of BERT, its config a list", bert("config.json", b"[]"), "bert", anywhere=True)
weights.add("a folder of BERT, its config empty", bert("config.json", b""), "bert", anywhere=True)
weights.add(
    "a folder of BERT with code of its own",
    bert("config.json", b'{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.Net"}}'),
    "bert",
    anywhere=True,
)
weights.add("a folder of BERT, its tokenizer a list", bert("tokenizer.json", b"[]"), "bert", anywhere=True)

CASES: list[Case] = [*text.cases, *line.cases, *weights.cases]
