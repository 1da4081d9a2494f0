"""Makes classes.tflite beside this script: `python -m tests.samples.make_classes` (needs the training extra)."""

from pathlib import Path

import litert_torch
import torch
from torch import nn


class Classes(nn.Module):
    """Three classes before their softmax, of a picture in -1..1: dark is the first, bright the third."""

    def forward(self, image):
        """(1,H,W,3) -> (1,H,W,3)."""
        red = image[..., :1]
        return torch.cat([-8.0 * red, red, 8.0 * red], dim=-1)


sample = {"image": torch.zeros(1, 32, 32, 3)}
made = litert_torch.signature("serving_default", Classes().eval(), sample_kwargs=sample).convert()
made.export(str(Path(__file__).parent / "classes.tflite"))
