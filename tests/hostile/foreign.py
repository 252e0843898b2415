"""Run folders whose config names code: imported from the current folder if it were, and then there would be one more file."""

from tests.hostile.world import PREDICT, Case, Corpus, doing, put, swap

foreign = Corpus("run: code", PREDICT, 1, "run/config.yaml", "--trust-code")
WICKED = put("wicked.py", "open('run/imported', 'w').write('code ran')\n")
SENSITIVITY = "priors sensitivity run --data manifest.csv --out sensitivity --refit config.yaml"
LOADING = {
    "predict": PREDICT,
    "impute": "impute run --data manifest.csv --out latents.nc",
    "evaluate": "evaluate run --data manifest.csv --out metrics.json",
    "diagnose": "diagnose run --data manifest.csv",
    "recalibrate": "recalibrate run --data manifest.csv",
    "sensitivity": SENSITIVITY,
    "select": "select --run run --data manifest.csv --out selection",
    "select with a config": "select config.yaml --run run --data manifest.csv --out selection",
}
SLOTS = {
    "encoder": ("encoder: bag", "encoder: wicked:Net", "modalities.note.encoder is wicked:Net"),
    "family": ("family: gaussian", "family: wicked:Net", "prior.copula.family is wicked:Net"),
    "families": ("families: null", "families: [clayton, wicked:Net]", "prior.copula.families.1 is wicked:Net"),
    "prior": ("dist: LogNormal", "dist: wicked:Net", "priors.scales.dist is wicked:Net"),
    "prior of the copula": ("copula_df: null", "copula_of: {dist: wicked:Net}", "priors.copula_of.dist is wicked:Net"),
    "decoder": ("decoders:\n  kind: none", "decoders:\n  kind: wicked:Net", "decoders.kind is wicked:Net"),
}
for command, line in LOADING.items():
    change = swap("run/config.yaml", *SLOTS["encoder"][:2])
    foreign.add(f"an encoder from elsewhere, {command}", doing(WICKED, change), "wicked:Net", command=line)
for slot, (old, new, says) in SLOTS.items():
    foreign.add(f"{slot} from elsewhere", doing(WICKED, swap("run/config.yaml", old, new)), says)
foreign.add("an encoder that is a function of Python's", swap("run/config.yaml", "encoder: bag", "encoder: os:system"), "os:system")
CASES: list[Case] = foreign.cases
