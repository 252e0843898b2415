"""Data sets larger than memory: a folder of Parquet shards, each a small manifest with its tables and files."""
