"""Several processes that serve as one box; only `main`, the worker itself, imports a native library."""
