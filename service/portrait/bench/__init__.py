"""Measure what a frame costs and how many streams a box carries."""
