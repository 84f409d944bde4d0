"""Durable storage: LMDB records, vector files, saved graphs, group commit."""
