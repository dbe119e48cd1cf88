"""Benchmarks: the same workloads for several WebTransport libraries, in one run."""
