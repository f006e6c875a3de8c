"""The benchmarks that can be run, by name."""
