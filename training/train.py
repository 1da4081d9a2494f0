"""Train a configuration.

    python -m training.train portrait --data ../shared/data/portraits

Writes into `--out` (default runs/NAME) after every epoch: `weights.pt` (what is evaluated and exported), `last.pt`
(all that a resumed run needs), `state.json`, and a line of `log.csv`. Started again, a run goes on after its last whole
epoch.
"""

import argparse
import csv
import dataclasses
import json
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from training import evaluate, losses, model
from training.configs import CONFIGS, Config
from training.data import Batches, Portraits, add_option, load_backgrounds
from training.encoders import load_mobilenetv2_imagenet
from training.teacher import Teacher

EVALUATE_EVERY = 5
"""Epochs between two looks at val. Nothing is chosen by it: the weights kept are the last."""


class Trainer:
    """One run: its network, optimiser, place in the schedule and folder."""

    def __init__(self, config: Config, batches: Batches, val: Portraits, out: Path):
        self.config, self._batches, self._val, self._out = config, batches, val, out
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.epoch = 0
        self.network = model.build(config.network).to(self.device)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.network, multi_avg_fn=running_average(config.average), use_buffers=True
        )
        self._optimizer = optimizer(config, self.network)

    def start_from(self, state):
        """Take the network's weights from a state of `model.NETWORKS`, for the average as well."""
        self.network.load_state_dict(state)
        self.average.module.load_state_dict(state)

    def resume(self):
        """Load the last whole epoch of the folder, if there is one; ValueError if it is of another network."""
        if not (self._out / "last.pt").exists():
            return
        trained = json.loads((self._out / "state.json").read_text())["config"]["network"]
        if trained != self.config.network:
            raise ValueError(f"{self._out} holds a run of {trained}; expected is one of {self.config.network}")
        saved = torch.load(self._out / "last.pt", map_location=self.device, weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.average.load_state_dict(saved["average"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self.epoch = saved["epoch"]
        print(f"{self._out}: {self.epoch} of {self.config.epochs} epochs are done")

    def run(self):
        """Train until the configuration's last epoch."""
        self._out.mkdir(parents=True, exist_ok=True)
        while self.epoch < self.config.epochs:
            started = time.monotonic()
            loss = self._train_epoch()
            self.epoch += 1
            scores = []
            if self.epoch % EVALUATE_EVERY == 0 or self.epoch == self.config.epochs:
                height, width = self.config.sizes[-1][1:]
                scores = evaluate.evaluate(evaluate.network_segment(self.average.module, height, width), self._val)
            self._save()
            self._log(loss, scores, time.monotonic() - started)

    def _train_epoch(self):
        total = 0.0
        size, strength = self.config.size(self.epoch), self.config.strength(self.epoch)
        for step, batch in enumerate(self._batches.epoch(self.epoch, size, strength)):
            for group in self._optimizer.param_groups:
                group["lr"] = self.learning_rate(step)
            image, prior, truth, band, label, distorted = map(
                self._tensor, (batch.image, batch.prior, batch.mask, batch.band, batch.label, batch.distorted)
            )
            if self.network.takes_prior and len(batch.own):
                prior[batch.own] = self._own_mask(distorted)
            logits = self._logits(image, prior)
            loss = losses.portrait_loss(logits, truth, band, label)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            self.average.update_parameters(self.network)
            total += float(loss.detach())
        return total / self._batches.steps

    def _logits(self, image, prior):
        # bfloat16 halves the time of a step where the processor has instructions for it, and its range is float32's.
        with torch.autocast(self.device.type, torch.bfloat16):
            inputs = (image, prior) if self.network.takes_prior else (image,)
            return self.network(*inputs).float()

    @torch.no_grad()
    def _own_mask(self, image):
        self.network.eval()
        mask = torch.sigmoid(self._logits(image, torch.zeros_like(image[:, :1])))
        self.network.train()
        return mask

    def _tensor(self, array):
        """(N,H,W,C) numpy as (N,C,H,W) in channels_last memory: no copy on a CPU."""
        return torch.from_numpy(array).permute(0, 3, 1, 2).to(self.device)

    def learning_rate(self, step):
        """The rate of one step of the current epoch."""
        config = self.config
        if config.schedule == "exponential":
            return config.learning_rate * 0.9**self.epoch
        done = self.epoch + step / self._batches.steps
        if done < 1.0:
            return config.learning_rate * max(done, 0.01)
        return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (done - 1.0) / (config.epochs - 1.0)))

    def _save(self):
        torch.save(self.average.module.state_dict(), self._out / "weights.pt")
        whole = {"network": self.network.state_dict(), "average": self.average.state_dict()}
        whole |= {"optimizer": self._optimizer.state_dict(), "epoch": self.epoch}
        state = {"epoch": self.epoch, "config": dataclasses.asdict(self.config)}
        (self._out / "state.json").write_text(json.dumps(state, indent=2))
        # Last, and whole: a run killed while it writes goes on from the epoch before.
        torch.save(whole, self._out / "last.pt.new")
        (self._out / "last.pt.new").replace(self._out / "last.pt")

    def _log(self, loss, scores, seconds):
        row = {"epoch": self.epoch, "loss": round(loss, 5), "seconds": round(seconds), "portrait": "", "wild": ""}
        for group, members in evaluate.groups(scores).items():
            if group in row:
                row[group] = round(100 * float(np.mean([score.iou for score in members])), 2)
        path = self._out / "log.csv"
        new = not path.exists()
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(" ".join(f"{key}={value}" for key, value in row.items() if value != ""), flush=True)


def running_average(decay):
    """An exponential average whose memory grows with the steps it has seen, so that it forgets the first weights."""

    @torch.no_grad()
    def update(averaged, current, count):
        kept = min(decay, (1 + int(count)) / (10 + int(count)))
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new, 1 - kept) if old.is_floating_point() else old.copy_(new)

    return update


def optimizer(config, network):
    """Adam, or AdamW that decays kernels alone: normalisation and biases stay free."""
    if config.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), config.learning_rate)
    kernels = [value for value in network.parameters() if value.ndim > 1]
    others = [value for value in network.parameters() if value.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, config.learning_rate)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONFIGS)
    add_option(parser)
    parser.add_argument(
        "--imagenet",
        type=Path,
        default=Path("../shared/weights/mobilenet_v2_0.35_224_imagenet_backbone.npz"),
        help="weights to start from, where the configuration wants them (docs/develop/training.md)",
    )
    parser.add_argument("--init", type=Path, help="weights.pt of another run to start from")
    parser.add_argument(
        "--teacher",
        type=Path,
        default=Path("peers/selfie_segmentation.tflite"),
        help="model that softens the labels, where the configuration wants one (make peers/selfie_segmentation.tflite)",
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default runs/NAME)")
    parser.add_argument("--epochs", type=int, help="instead of the configuration's")
    parser.add_argument("--steps", type=int, help="of an epoch, instead of the configuration's")
    arguments = parser.parse_args()
    overrides = {key: value for key in ("epochs", "steps") if (value := getattr(arguments, key)) is not None}
    config = dataclasses.replace(CONFIGS[arguments.name], **overrides)
    torch.manual_seed(config.seed)
    # Batches are made by threads of their own beside the step; OpenCV's own threads would fight it for the cores.
    cv2.setNumThreads(1)
    batches = Batches(
        Portraits(arguments.data, "train"),
        load_backgrounds(arguments.data),
        config.mix,
        batch=config.batch,
        steps=config.steps,
        seed=config.seed,
        teacher=Teacher(arguments.teacher) if config.mix.taught else None,
    )
    trainer = Trainer(config, batches, Portraits(arguments.data, "val"), arguments.out or Path("runs") / arguments.name)
    if config.imagenet:
        filled = load_mobilenetv2_imagenet(trainer.network.encoder, arguments.imagenet)
        trainer.start_from(trainer.network.state_dict())
        print(f"{filled} layers from {arguments.imagenet}")
    if arguments.init:
        trainer.start_from(torch.load(arguments.init, map_location=trainer.device, weights_only=True))
    trainer.resume()
    trainer.run()


if __name__ == "__main__":
    main()
