"""The language model that advises the caches, off the path of every request."""
