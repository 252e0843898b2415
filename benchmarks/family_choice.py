"""Does `select` find the true copula family and the true K? Simulated latents whose truth is known.

    python benchmarks/family_choice.py --out family_choice.jsonl [--families a,b] [--sets 10] [--modalities 2] [--first 1000] [--mixture]
        [--around]

Per true family, `--sets` sets of 4,000 latents of the population of `cm2pyro simulate`: D = 2, tau = 0.5 (Student-t: 4 degrees of freedom),
K = 2 and 3 in turn, adjacent centres 3 sd apart (the larger sd, in every dimension). Candidates: gaussian, student_t, clayton, gumbel,
frank, joe with K = 1, 2, 3, 4 (--around: the true K and its two neighbours), under the default priors; with --mixture the mixture of
these families too. A line of the file is a set; sets that are there already are not run again. Set i has the seed first + i. Prints,
per family, how often family and K were found.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from cm2pyro.data.simulated_truth import SimulationSettings, population
from cm2pyro.diagnostics.paired_elpd import paired_elpd
from cm2pyro.distributions import CopulaMixture, make_copula
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference.select import select

FAMILIES = ("gaussian", "student_t", "clayton", "gumbel", "frank", "joe")
N, D = 4000, 2


def latents(family: str, K: int, M: int, seed: int) -> torch.Tensor:
    """(N, M, D), standardised as given latents are; M <= 3."""
    prior = population(SimulationSettings(components=K, separation=3.0, missing=0)).prior
    copula = make_copula(family, M, tau=torch.tensor(0.5, dtype=torch.float64), df=4.0 if family == "student_t" else None)
    torch.manual_seed(seed)
    z = CopulaMixture(prior.log_weights, prior.assignment[:, :M], prior.locs[:M], prior.scales[:M], copula).rsample((N,))
    return (z - z.mean(0)) / z.std(0)


def run(family: str, K: int, M: int, seed: int, mixture: bool, components: tuple[int, ...]) -> dict[str, Any]:
    started = time.perf_counter()
    z = latents(family, K, M, seed)
    structure = MixtureStructure(M, D, 1, scale_floor=0.02)
    names = [*FAMILIES, "mixture"] if mixture else list(FAMILIES)
    found = select(structure, z, torch.ones(N, M, dtype=torch.bool), names, components)
    judged = paired_elpd(torch.stack([c.fit.elpd for c in found], 1).numpy(), [c.simplicity for c in found])
    chosen = found[judged.chosen]
    table = [
        {"family": c.family, "components": c.components, "simplicity": c.simplicity, "effective": round(c.fit.effective, 2)}
        | {"elpd": round(float(judged.elpd[i]), 3), "difference": round(float(judged.difference[i]), 3)}
        | {"se_difference": round(float(judged.se_difference[i]), 3), "refits": c.fit.refits, "local_optima": c.local_optima}
        | {"weight": round(float(judged.weights[i]), 4), "picked": round(float(judged.picked[i]), 4)}
        for i, c in enumerate(found)
    ]
    answer = {"chosen_family": chosen.family, "chosen_components": chosen.components}
    return {"family": family, "components": K, "modalities": M, "seed": seed, "mixture": mixture} | answer | {
        "seconds": round(time.perf_counter() - started, 1), "candidates": table
    }  # fmt: skip


def report(lines: list[dict[str, Any]]) -> None:
    print(f"\n{'truth':12}{'M':>3}{'mixture':>9}{'sets':>6}{'family':>8}{'K':>5}{'both':>6}  nats to the next family at the true K")
    groups = sorted({(line["modalities"], line["mixture"], FAMILIES.index(line["family"])) for line in lines})
    for M, mixture, f in groups:
        mine = [x for x in lines if (x["modalities"], x["mixture"], x["family"]) == (M, mixture, FAMILIES[f])]
        family = [x["chosen_family"] == x["family"] for x in mine]
        K = [x["chosen_components"] == x["components"] for x in mine]
        both = sum(a and b for a, b in zip(family, K, strict=True))
        ahead = sorted(lead(x) for x in mine)
        nearest = " ".join(sorted({name for _, name in ahead}))
        print(
            f"{FAMILIES[f]:12}{M:3}{'yes' if mixture else 'no':>9}{len(mine):6}{sum(family):8}{sum(K):5}{both:6}"
            f"  {ahead[0][0]:.0f} to {ahead[-1][0]:.0f} ({nearest})"
        )
    other = [-at for at in (true_fit(x)["difference"] for x in lines if best(x)["components"] != x["components"])]
    span = f"by {min(other, default=0):.1f} to {max(other, default=0):.1f} nats"
    print(f"sets in which another K has the greatest elpd: {len(other)} of {len(lines)}, {span}")


def true_fit(line: dict[str, Any]) -> dict[str, Any]:
    """The candidate that is the truth."""
    return next(x for x in line["candidates"] if (x["family"], x["components"]) == (line["family"], line["components"]))


def best(line: dict[str, Any]) -> dict[str, Any]:
    return max(line["candidates"], key=lambda x: x["elpd"])


def lead(line: dict[str, Any]) -> tuple[float, str]:
    """Nats by which the true family is ahead of the next one at the true K, and that one's name."""
    others = [x for x in line["candidates"] if x["components"] == line["components"] and x["family"] != line["family"]]
    next_ = max(others, key=lambda x: x["elpd"])
    return true_fit(line)["elpd"] - next_["elpd"], next_["family"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--sets", type=int, default=10)
    parser.add_argument("--modalities", type=int, choices=(2, 3), default=2)
    parser.add_argument("--first", type=int, default=1000, help="seed of set 0")
    parser.add_argument("--mixture", action="store_true")
    parser.add_argument("--around", action="store_true", help="candidates K - 1, K, K + 1 only")
    parser.add_argument("--report", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {(x["family"], x["modalities"], x["seed"], x["mixture"]) for x in lines}
    # Set by set through the families, so that a run that is cut has something of each.
    for i in range(0 if arguments.report else arguments.sets):
        for family in arguments.families.split(","):
            key = (family, arguments.modalities, arguments.first + i, arguments.mixture)
            if key in done:
                continue
            K = 2 + (i + FAMILIES.index(family)) % 2
            components = (K - 1, K, K + 1) if arguments.around else (1, 2, 3, 4)
            lines.append(run(family, K, arguments.modalities, arguments.first + i, arguments.mixture, components))
            with arguments.out.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            x = lines[-1]
            print(f"{family} K {K} seed {x['seed']}: {x['chosen_family']} K {x['chosen_components']}  {x['seconds']:.0f} s", flush=True)
    report(lines)


if __name__ == "__main__":
    main()
