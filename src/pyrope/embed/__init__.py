"""Texts to vectors: one adapter for each embedder, and the batching in front of them."""
