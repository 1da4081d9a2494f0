"""Several worker processes that serve as one box; nothing here but `main` imports a native library."""
