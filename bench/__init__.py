"""Side-by-side measurements. Each module is a command: ``python -m bench.apply --help``."""
