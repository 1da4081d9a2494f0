"""Tests of training/: they need the training extra, and run in an environment of their own (make test)."""
