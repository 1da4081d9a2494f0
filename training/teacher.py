"""A second opinion on the pictures of a training: what another, larger network says of them."""

import threading

import cv2

from training.evaluate import File


class Teacher:
    """The masks of a TFLite file for augmented pictures, asked for by several threads at once."""

    def __init__(self, path):
        self._path = path
        File(path)  # A file that cannot be read is refused here, not in a thread.
        self._own = threading.local()

    def __call__(self, image):
        """(H,W) float32 in 0..1 for a picture (H,W,3) uint8 RGB."""
        if not hasattr(self._own, "file"):
            self._own.file = File(self._path)
        return cv2.resize(self._own.file(image), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
