"""What the words of the report mean, for a reader who has not seen the model; docs/glossary.md has more."""

WORDS = {
    "row, sample": "One line of the manifest: what is known of one patient, stay or visit, and its outcome.",
    "modality": "One kind of data of a row, such as a bedside series, a picture or a note; it may be missing.",
    "latent": (
        "A few numbers into which an encoder turns a modality of a row. They have no unit and no meaning by themselves; another "
        "fit has others."
    ),
    "component, cluster": (
        "One of the Gaussians whose mixture describes the latents; a row belongs to each with a probability, its responsibility."
    ),
    "copula": "What ties the latents of two modalities inside a component, apart from how each is distributed by itself.",
    "tau": (
        "Kendall's tau, from −1 to 1: by how much more often two rows are ordered alike in both modalities than oppositely. 0 is "
        "independence."
    ),
    "pseudo-observation": (
        "A latent, as the place that it takes in its component's distribution: u between 0 and 1, or s, the same on the scale of "
        "a standard normal."
    ),
    "nat": "Unit of log-likelihood, with the natural logarithm. A log-loss of 0.69 nats a row is a coin's.",
    "KL": "How far, in nats, what an encoder says of a row's latents lies from what the model expects before it has seen the modality.",
    "beta": (
        "Weight of the KL in the objective. 1 is Bayesian inference; below 1 the outcome counts for more, and intervals of the "
        "parameters are no posterior intervals."
    ),
    "global sites": "Parameters that all rows share: weights, locations and scales of the components, the copula, the outcome's head.",
    "head": "The last layer, from latents to the outcome.",
    "R-hat, effective draws, divergent": (
        "Whether chains of Monte Carlo agree (R-hat near 1), how many independent draws theirs are worth, and where they failed."
    ),
    "k-hat": "Whether an approximate posterior covers the true one: good below 0.5, usable below 0.7.",
    "AUROC, AUPRC": (
        "Probability that a row with the outcome is ranked above one without; average precision, to be read beside the share of "
        "rows with the outcome."
    ),
    "Brier, ECE, slope, intercept": (
        "Mean squared error of probabilities; mean distance from observed frequencies; 1 and 0 where probabilities are calibrated."
    ),
    "expected": "What the fitted model would give if it were true, found by drawing from it.",
}
