"""Filters that people put behind a network without a prior, to steady it. Each is fed masks (h,w) in 0..1, in order."""

import numpy as np


class Raw:
    """Nothing at all."""

    def __call__(self, mask):
        """The mask itself."""
        return mask


class Average:
    """An exponential moving average that keeps the share `kept` of what it showed before."""

    def __init__(self, kept):
        self._kept, self._shown = kept, None

    def __call__(self, mask):
        """The average so far."""
        self._shown = mask if self._shown is None else self._kept * self._shown + (1 - self._kept) * mask
        return self._shown


class OneEuro:
    """The 1 Euro filter (Casiez et al., CHI 2012) on every pixel: the faster it changes, the less it is smoothed."""

    def __init__(self, rate=30.0, cutoff=1.0, beta=1.0, slope_cutoff=1.0):
        self._rate, self._cutoff, self._beta, self._slope_cutoff = rate, cutoff, beta, slope_cutoff
        self._shown = self._slope = None

    def __call__(self, mask):
        """The filtered mask."""
        if self._shown is None:
            self._shown, self._slope = mask, np.zeros_like(mask)
            return mask
        slope = (mask - self._shown) * self._rate
        self._slope = self._slope + self._share(self._slope_cutoff) * (slope - self._slope)
        share = self._share(self._cutoff + self._beta * np.abs(self._slope))
        self._shown = self._shown + share * (mask - self._shown)
        return self._shown

    def _share(self, cutoff):
        return 1.0 / (1.0 + self._rate / (2 * np.pi * cutoff))
