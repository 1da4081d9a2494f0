"""Named training configurations. `python -m training.train NAME` runs one; flags override single values."""

from dataclasses import dataclass, field, replace

from training import augment, priors
from training.data import OPEN, Mix


@dataclass(frozen=True)
class Config:
    """Everything that decides a training run besides the data."""

    network: str
    sizes: tuple[tuple[int, int, int], ...] = ((0, 224, 224),)
    """(first epoch, height, width) in order; the last one is the network's own size."""
    imagenet: bool = False
    """Start a MobileNetV2 encoder from ImageNet weights (no public ones were found for the others)."""
    taught: bool = False
    """Learn from the labels of `training.label` and from `--more` pictures; otherwise from given masks alone."""
    licences: tuple[str, ...] = ()
    """Learn only from pictures of these licences, with what they show beside people as rooms; () is all."""
    epochs: int = 30
    batch: int = 32
    steps: int = 181
    """Steps per epoch; 181 x 32 shows as many pictures as the training split holds."""
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "exponential"
    """What the rate does: see `share` of `training.train`."""
    weight_decay: float = 0.0
    clip: float = 5.0
    """Longest gradient that is believed."""
    average: float = 0.0
    """Decay of the running average of the weights that is evaluated and kept; 0 keeps the weights themselves."""
    contour: float = 0.0
    """Weight of the cross-entropy on the boundary band, which the paper's loss has not."""
    mix: Mix = field(default_factory=Mix)
    seed: int = 1

    def size(self, epoch):
        """(height, width) of the pictures of an epoch."""
        return [(height, width) for first, height, width in self.sizes if first <= epoch][-1]


# The rows of the paper's Table I: the same data, priors and optimiser for all, and the paper's budget and schedule.
TABLE = Config(network="paper")

# Video calls decide: portraits more often, whole bodies and people in the wild less often; of the pictures without
# given masks news photos and series of one person less often.
CALLS = {
    "self": 2.0, "face": 0.8, "street": 0.9, "other": 0.6,
    "lfw": 0.3, "women": 0.3, "hd2": 0.8, "mix": 0.9, "mask": 1.0, "hands": 0.5, "unsplash": 1.2, "office": 1.0,
    "gest": 0.5, "fsyn": 0.8, "meet": 1.0,
}  # fmt: skip

PORTRAIT = Config(
    network="selfie",
    sizes=((0, 192, 192),),
    taught=True,
    epochs=600,
    steps=200,
    optimizer="adamw",
    learning_rate=2e-4,
    schedule="constant",
    weight_decay=1e-4,
    average=0.999,
    contour=0.5,
    mix=Mix(weights=CALLS, shares=priors.STEADY, strength=augment.FULL, paste=0.12, beside=0.06, empty=0.08),
)
"""The long run: it never ends well by itself. `calm` makes of any of its checkpoints what is shipped."""

CALM_MIX = replace(
    PORTRAIT.mix, weights=CALLS | {"self": 3.0}, strength=augment.CALM, paste=0.05, beside=0.03, empty=0.05
)


def calm(config, epochs=5):
    """The end of a run: pictures nearly as they come, and a rate that goes to zero (--init weights.pt of the run)."""
    return replace(config, epochs=epochs, learning_rate=1e-4, schedule="linear", mix=CALM_MIX, average=0.998, seed=2)


# Whole bodies are half of what may be used commercially; calls still decide.
OPEN_CALLS = CALLS | {"street": 0.8, "hd2": 1.0, "hands": 0.7, "unsplash": 1.5, "mask": 1.5}
# What lies beside people is less like a room than a room is: more of it.
OPEN_PORTRAIT = replace(PORTRAIT, licences=OPEN, mix=replace(PORTRAIT.mix, weights=OPEN_CALLS, empty=0.2))

WIDE = replace(PORTRAIT, sizes=((0, 144, 256),))
FINE = replace(PORTRAIT, sizes=((0, 256, 256),))

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
    "table_portrait": replace(TABLE, network="portrait", imagenet=True, sizes=((0, 192, 192),)),
    "portrait": PORTRAIT,
    "portrait_calm": calm(PORTRAIT),
    "open": OPEN_PORTRAIT,
    "open_calm": replace(calm(OPEN_PORTRAIT), mix=replace(CALM_MIX, weights=OPEN_CALLS, empty=0.2)),
    "wide": WIDE,
    "wide_calm": calm(WIDE),
    "fine": FINE,
    "fine_calm": calm(FINE),
    # The smaller network, taught alike.
    "mobilenet": replace(PORTRAIT, network="portrait", imagenet=True, learning_rate=1e-3),
    "mobilenet_calm": replace(calm(PORTRAIT), network="portrait", learning_rate=5e-4),
}
