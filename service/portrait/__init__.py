"""Real-time person segmentation on ordinary CPUs: frames in, masks or composited frames out."""

__version__ = "0.2.0"
