"""Other ways of fusing modalities, with the encoders, data, splits, optimiser, budget and seeds of this package."""
