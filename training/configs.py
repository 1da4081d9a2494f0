"""Named training configurations. `python -m training.train NAME` runs one; flags override single values."""

from dataclasses import dataclass, field, replace

from training import priors


@dataclass(frozen=True)
class Config:
    """Everything that decides a training run besides the data."""

    encoder: str
    imagenet: bool = False
    """Start the encoder from ImageNet weights (MobileNetV2 only; none are public for PP-LCNet-0.5x)."""
    size: int = 224
    epochs: int = 30
    batch: int = 32
    steps: int = 181
    """Steps per epoch; 181 x 32 shows as many pictures as the training split holds."""
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "exponential"
    """"exponential": times 0.9 after every epoch (the paper); "cosine": to zero, after one epoch of warm-up."""
    weight_decay: float = 0.0
    weights: dict[str, float] = field(default_factory=lambda: {"other": 1.0})
    """How often a picture of a part is drawn, relative to the others."""
    shares: dict[str, float] = field(default_factory=lambda: priors.PAPER)
    """How often each kind of prior is shown."""
    paste: float = 0.0
    """Share of pictures whose person is pasted onto another background."""
    empty: float = 0.0
    """Share of pictures that are rooms without anybody: nobody in them, whatever the prior says."""
    webcam: bool = False
    """Noise, compression, colour cast and low resolution on top of the paper's augmentations."""
    seed: int = 1


# Video calls decide: portraits more often, whole bodies and people in the wild less often.
CALLS = {"self": 2.0, "face": 0.8, "street": 0.9, "other": 0.6}

CONFIGS = {
    "paper": Config(encoder="pplcnet"),
    "pplcnet": Config(
        encoder="pplcnet", optimizer="adamw", learning_rate=2e-3, weight_decay=1e-4, schedule="cosine",
        weights=CALLS, paste=0.15, webcam=True,
    ),
    "mobilenetv2": Config(
        encoder="mobilenetv2", imagenet=True, epochs=20, optimizer="adamw", learning_rate=2e-3, weight_decay=1e-4,
        schedule="cosine", weights=CALLS, paste=0.15, webcam=True,
    ),
}  # fmt: skip

# Started from the weights of a run of "mobilenetv2": `--init runs/mobilenetv2`.
CONFIGS["steady"] = replace(
    CONFIGS["mobilenetv2"], imagenet=False, epochs=6, learning_rate=6e-4, shares=priors.STEADY, empty=0.12, seed=2
)
