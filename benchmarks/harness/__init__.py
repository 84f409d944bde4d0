"""The parts of the benchmark harness: data, load generator, servers, figures, report."""
