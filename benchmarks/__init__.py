"""Benchmark scripts of the operators, one file a stem, and the harness they stand on; installed with the package."""
