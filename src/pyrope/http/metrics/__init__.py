"""Metrics for Prometheus: a module for each family, and `collector`; see docs/metrics.md."""
