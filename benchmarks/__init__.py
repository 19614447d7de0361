"""How fast distinv is on this machine: `python -m benchmarks --quick`."""
