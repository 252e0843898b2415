"""MIMIC-III and MIMIC-IV, from their official tables."""
