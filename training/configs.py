"""Named training configurations. `python -m training.train NAME` runs one; flags override single values."""

from dataclasses import dataclass, field, replace

from training import priors
from training.data import Mix


@dataclass(frozen=True)
class Config:
    """Everything that decides a training run besides the data."""

    network: str
    sizes: tuple[tuple[int, int, int], ...] = ((0, 224, 224),)
    """(first epoch, height, width) in order; the last one is the network's own size."""
    imagenet: bool = False
    """Start a MobileNetV2 encoder from ImageNet weights (no public ones were found for the others)."""
    epochs: int = 30
    batch: int = 32
    steps: int = 181
    """Steps per epoch; 181 x 32 shows as many pictures as the training split holds."""
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "exponential"
    """"exponential": times 0.9 after every epoch (the paper); "cosine": to zero, after one epoch of warm-up."""
    weight_decay: float = 0.0
    average: float = 0.0
    """Decay of the running average of the weights that is evaluated and kept; 0 keeps the weights themselves."""
    mix: Mix = field(default_factory=Mix)
    calm: int = 0
    """Epochs at the end whose augmentation is turned down to CALM: the network settles on pictures as they come."""
    seed: int = 1

    def size(self, epoch):
        """(height, width) of the pictures of an epoch."""
        return [(height, width) for first, height, width in self.sizes if first <= epoch][-1]

    def strength(self, epoch):
        """How far the augmentation of an epoch goes."""
        return CALM if epoch >= self.epochs - self.calm else 1.0


CALM = 0.3


# Video calls decide: portraits more often, whole bodies and people in the wild less often.
CALLS = {"self": 2.0, "face": 0.8, "street": 0.9, "other": 0.6}

SHIPPED = Mix(weights=CALLS, shares=priors.STEADY, paste=0.2, beside=0.08, empty=0.08, webcam=True)

# The rows of the paper's Table I: the same data, priors, optimiser and budget for all. Ten epochs, most of them at low
# resolution, are a third of the paper's: they rank networks, they do not finish them.
TABLE = Config(network="paper", sizes=((0, 128, 128), (7, 224, 224)), epochs=10, schedule="cosine")

CONFIGS = {
    "paper": Config(network="paper"),
    "table_paper": TABLE,
    "table_without_prior": replace(TABLE, network="paper_without_prior"),
    "table_mobilenetv3": replace(TABLE, network="mobilenetv3_small"),
    "table_mobilenetv2": replace(TABLE, network="mobilenetv2"),
    "table_mobilenetv2_imagenet": replace(TABLE, network="mobilenetv2", imagenet=True),
    "table_efficientnetb0": replace(TABLE, network="efficientnetb0"),
    "table_sinet": replace(TABLE, network="sinet"),
    "table_portraitnet": replace(TABLE, network="portraitnet"),
    "table_portrait": replace(TABLE, network="portrait", imagenet=True, sizes=((0, 128, 128), (7, 192, 192))),
    "portrait": Config(
        network="portrait",
        sizes=((0, 128, 128), (36, 160, 160), (61, 192, 192)),
        imagenet=True,
        epochs=76,
        optimizer="adamw",
        learning_rate=2e-3,
        schedule="cosine",
        weight_decay=1e-4,
        average=0.999,
        mix=SHIPPED,
    ),
    # Goes on from `portrait` (--init runs/portrait/weights.pt). MediaPipe's general model teaches where it knows better
    # than `portrait`; the masks of the faces leave out hands and clothes, which it takes for the person. More rooms,
    # because `portrait` sees somebody in 4 % of an empty one.
    "portrait_taught": Config(
        network="portrait",
        sizes=((0, 160, 160), (30, 192, 192)),
        epochs=44,
        optimizer="adamw",
        learning_rate=1e-3,
        schedule="cosine",
        weight_decay=1e-4,
        average=0.999,
        mix=replace(SHIPPED, taught={"self": 0.5, "street": 0.5, "davis": 0.5}, empty=0.12),
        calm=5,
        seed=2,
    ),
}
