"""One picture in memory, and how it gets in and out."""
