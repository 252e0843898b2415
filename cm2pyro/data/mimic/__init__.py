"""MIMIC-III and MIMIC-IV: from the official tables to a manifest, series, labels and the linked modalities."""
