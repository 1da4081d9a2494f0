"""Train a configuration.

    python -m training.train mobilenetv2 --data ../shared/data/portraits
    python -m training.train steady --init runs/mobilenetv2

Writes into `--out` (default runs/NAME): `last.weights.h5` and `state.json` after every epoch, `best.weights.h5` when
the IoU on val rose, `log.csv` with a line per epoch. Started again, a run goes on after its last whole epoch.
"""

import argparse
import csv
import dataclasses
import json
import math
import time
from pathlib import Path

import keras
import numpy as np

from training import evaluate, losses, model
from training.configs import CONFIGS, Config
from training.data import Batches, Portraits, load_backgrounds
from training.encoders import load_mobilenetv2_imagenet


class Trainer:
    """One run: its network, optimiser, place in the schedule and folder."""

    def __init__(self, config: Config, batches: Batches, val: Portraits, out: Path):
        self.config, self._batches, self._val, self._out = config, batches, val, out
        self.epoch, self.best = 0, 0.0
        self.network = model.build(config.encoder, config.size)
        self.network.compile(optimizer=_optimizer(config), loss=losses.portrait_loss, jit_compile=False)
        self.network.optimizer.build(self.network.trainable_variables)

    def resume(self):
        """Load the last whole epoch of the folder, if there is one."""
        state = self._out / "state.json"
        if state.exists():
            saved = json.loads(state.read_text())
            self.network.load_weights(self._out / "last.weights.h5")
            self.epoch, self.best = saved["epoch"], saved["best"]

    def run(self):
        """Train until the configuration's last epoch."""
        self._out.mkdir(parents=True, exist_ok=True)
        while self.epoch < self.config.epochs:
            started = time.monotonic()
            loss = self._train_epoch()
            scores = evaluate.evaluate(evaluate.keras_segment(self.network), self._val)
            portrait = evaluate.portrait_iou(scores)
            self.epoch += 1
            self._save(portrait)
            self._log(loss, scores, portrait, time.monotonic() - started)

    def _train_epoch(self):
        total = 0.0
        for step, batch in enumerate(self._batches.epoch(self.epoch)):
            self.network.optimizer.learning_rate = self.learning_rate(step)
            prior = batch.prior.copy()
            empty = np.zeros_like(prior[batch.own])
            prior[batch.own] = self.network.predict_on_batch({"image": batch.distorted, "prior": empty})
            total += float(self.network.train_on_batch({"image": batch.image, "prior": prior}, batch.mask))
        return total / self._batches.steps

    def learning_rate(self, step):
        """The rate of one step of the current epoch."""
        config = self.config
        if config.schedule == "exponential":
            return config.learning_rate * 0.9**self.epoch
        done = self.epoch + step / self._batches.steps
        if done < 1.0:
            return config.learning_rate * max(done, 0.01)
        return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (done - 1.0) / (config.epochs - 1.0)))

    def _save(self, portrait):
        if portrait > self.best:
            self.best = portrait
            self.network.save_weights(self._out / "best.weights.h5")
        # A run killed between the two files repeats one epoch from the new weights: harmless, so no rename dance.
        self.network.save_weights(self._out / "last.weights.h5")
        state = {"epoch": self.epoch, "best": self.best, "config": dataclasses.asdict(self.config)}
        (self._out / "state.json").write_text(json.dumps(state, indent=2))

    def _log(self, loss, scores, portrait, seconds):
        row = {
            "epoch": self.epoch,
            "loss": round(loss, 5),
            "portrait_iou": round(portrait, 5),
            "seconds": round(seconds),
        }
        row |= {part: round(float(np.mean(values)), 5) for part, values in sorted(scores.items())}
        path = self._out / "log.csv"
        new = not path.exists()
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)


def _optimizer(config):
    # Keras' AdamW decays every variable unless told not to; normalisation and bias must stay free.
    if config.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer
    return keras.optimizers.Adam(config.learning_rate)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONFIGS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/portraits"))
    parser.add_argument(
        "--imagenet", type=Path, default=Path("../shared/weights/mobilenet_v2_0.35_224_imagenet_backbone.npz")
    )
    parser.add_argument("--init", type=Path, help="folder of a run to start from")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    overrides = {key: value for key in ("epochs", "steps") if (value := getattr(arguments, key)) is not None}
    config = dataclasses.replace(CONFIGS[arguments.name], **overrides)
    keras.utils.set_random_seed(config.seed)
    batches = Batches(
        Portraits(arguments.data, "train"),
        load_backgrounds(arguments.data),
        size=config.size,
        batch=config.batch,
        steps=config.steps,
        weights=config.weights,
        shares=config.shares,
        paste=config.paste,
        empty=config.empty,
        webcam=config.webcam,
        seed=config.seed,
    )
    out = arguments.out or Path("runs") / arguments.name
    trainer = Trainer(config, batches, Portraits(arguments.data, "val"), out)
    if config.imagenet:
        print(f"{load_mobilenetv2_imagenet(trainer.network, arguments.imagenet)} layers from {arguments.imagenet}")
    if arguments.init:
        trainer.network.load_weights(arguments.init / "best.weights.h5")
    trainer.resume()
    trainer.run()


if __name__ == "__main__":
    main()
