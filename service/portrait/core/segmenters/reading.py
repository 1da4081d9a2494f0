"""Reading: what the numbers mean that a network takes and gives, where it was made elsewhere."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Reading:
    """The default is what files of this project take and give."""

    low: float = 0.0
    """The input that stands for black; white is 1."""
    person: tuple[int, ...] = ()
    """The classes of the output that belong to the person; () for an output of one channel, which is the person."""
    logits: bool = False
    """Whether the output is taken before the softmax over the classes, or before the sigmoid of a single channel."""

    def probability(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H,W) in 0..1, if the output is what it should be, of an output (H,W,channels)."""
        if not self.logits:
            return output[..., 0] if not self.person else output[..., self.person].sum(-1, dtype=np.float32)
        if not self.person:
            return np.asarray(0.5 + 0.5 * np.tanh(0.5 * output[..., 0]), np.float32)  # the sigmoid, without overflow
        likely = np.exp(output - output.max(-1, keepdims=True))
        return np.asarray(likely[..., self.person].sum(-1) / likely.sum(-1), np.float32)


OWN = Reading()
"""How files of this project are read."""
