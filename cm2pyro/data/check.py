"""What a manifest holds, as a fit would read it."""

from collections import Counter

from cm2pyro.config import Config
from cm2pyro.data.labels import UNLABELLED, classes_of, read_labels
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.prepared import Preparation


def describe(manifest: Manifest, config: Config, views: dict[str, tuple[str, ...]]) -> list[str]:
    """Read labels and every modality of every row; lines on what is there. Raises DataError at the first fault."""
    lines = []
    task = config.task
    if task.label in manifest.frame:
        classes = classes_of(manifest, task)
        labels = read_labels(manifest, task, classes)
        counts = ", ".join(f"{name} {int((labels == i).sum())}" for i, name in enumerate(classes))
        lines.append(f"labels in '{task.label}': {counts}, empty {int((labels == UNLABELLED).sum())}")
    else:
        lines.append(f"labels: no column '{task.label}'; enough to predict, not to fit or evaluate")
    preparation = Preparation.from_config(config, views)
    seen = preparation.observed(manifest)
    for m, name in enumerate(preparation.names):
        lines.append(f"modality {name}: {int(seen[:, m].sum())} of {len(manifest)} rows ({seen[:, m].mean():.1%})")
    lines += preparation.notes
    # The patterns that occur: all that could would be 2^M.
    patterns = Counter(tuple(row) for row in seen.tolist())
    for pattern in sorted(patterns, reverse=True) if seen.shape[1] > 1 else []:
        there = " + ".join(name for name, has in zip(preparation.names, pattern, strict=True) if has) or "nothing observed"
        lines.append(f"  {there}: {patterns[pattern]} rows")
    return lines
