"""Train a configuration.

    python -m training.train portrait --init selfie.pt --more ../shared/data/more --labels labels

Writes into `--out` (default runs/NAME) after every epoch: `weights.pt` (what is evaluated and exported), `last.pt`
(all that a resumed run needs), `state.json`, and a line of `log.csv`. Started again, a run goes on after its last whole
epoch. Beside other work one thread is faster than several that wait for each other (OMP_NUM_THREADS=1).
"""

import argparse
import csv
import dataclasses
import json
import math
import time
from pathlib import Path

import cv2
import torch

from training import held, losses, model, selfie, watch
from training.configs import CONFIGS, Config
from training.data import Batches, Pictures, Portraits, add_option, load_backgrounds, read_rooms, rooms_beside
from training.encoders import load_mobilenetv2_imagenet

EVALUATE_EVERY = 5
"""Epochs between two looks at val. Nothing is chosen by it: the weights kept are the last."""

SETTLING = 40
"""Batches whose statistics the batch normalisations of the averaged network are given at the end of a run."""

OPEN_ENDED = ("exponential", "constant")
"""Schedules that do not depend on when the run ends: it may be gone on with for more epochs."""


class Trainer:
    """One run: its network, optimiser, place in the schedule and folder."""

    def __init__(self, config: Config, pictures, backgrounds, out: Path, look, workers=1):
        self.config, self._out, self._look, self._workers = config, out, look, workers
        self._pictures, self._backgrounds = pictures, backgrounds
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._half = self.device.type == "cuda" or has_bfloat16()
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

    def normalise(self, count=6):
        """Put measured batch normalisation behind the convolutions of a `Selfie` fresh from its file."""
        batches = [self._unit(batch) for batch in self._batches(0, count)]
        selfie.normalise(self.network, [(image, torch.zeros_like(prior)) for image, prior, *_ in batches])
        self.start_from(self.network.state_dict())

    def resume(self):
        """Load the last whole epoch of the folder, if there is one; ValueError if it is of another configuration."""
        if not (self._out / "last.pt").exists():
            return False
        trained = json.loads((self._out / "state.json").read_text())["config"]
        ours = json.loads(json.dumps(dataclasses.asdict(self.config)))
        differ = [key for key in ours if trained.get(key) != ours[key]]
        if self.config.schedule in OPEN_ENDED:
            differ = [key for key in differ if key != "epochs"]
        if differ:
            pairs = ", ".join(f"{key} {trained.get(key)}, expected {ours[key]}" for key in differ)
            raise ValueError(f"{self._out} holds another run: got {pairs}; give another folder with --out")
        saved = torch.load(self._out / "last.pt", map_location=self.device, weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.average.load_state_dict(saved["average"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self.epoch = saved["epoch"]
        print(f"{self._out}: {self.epoch} of {self.config.epochs} epochs are done", flush=True)
        return True

    def run(self):
        """Train until the configuration's last epoch."""
        self._out.mkdir(parents=True, exist_ok=True)
        while self.epoch < self.config.epochs:
            started = time.monotonic()
            loss = self._train_epoch()
            self.epoch += 1
            last = self.epoch == self.config.epochs
            if last and self.config.average:
                self._settle()
            self._save()
            looked = {}
            if last or self.epoch % EVALUATE_EVERY == 0:
                looked = self._look(self.average.module, *self.config.sizes[-1][1:])
            self._log({"epoch": self.epoch, "loss": loss, "seconds": time.monotonic() - started} | looked)

    def _batches(self, epoch, count):
        batches = Batches(
            self._pictures,
            self._backgrounds,
            self.config.mix,
            batch=self.config.batch,
            size=self.config.size(epoch),
            seed=self.config.seed,
        )
        first = epoch * self.config.steps
        return torch.utils.data.DataLoader(
            batches,
            batch_size=None,
            sampler=range(first, first + count),
            num_workers=self._workers,
            prefetch_factor=4 if self._workers else None,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=one_thread,
        )

    def _train_epoch(self):
        total, believed = 0.0, 0
        self.network.train()
        for step, batch in enumerate(self._batches(self.epoch, self.config.steps)):
            for group in self._optimizer.param_groups:
                group["lr"] = self.learning_rate(step)
            image, prior, label, band, own, distorted = self._unit(batch)
            if self.network.takes_prior and len(distorted):
                prior[own] = self._own_masks(distorted, image[own])
            loss = losses.portrait_loss(self._logits(self.network, image, prior), label, band, self.config.contour)
            # One step into nothing would poison the network, its average and the checkpoint for good.
            if not torch.isfinite(loss):
                print(f"step {step} of epoch {self.epoch}: the loss is {loss.item()}, the step is left out", flush=True)
                continue
            self._optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
            self._optimizer.step()
            self.average.update_parameters(self.network)
            total, believed = total + float(loss.detach()), believed + 1
        return total / max(1, believed)

    def _logits(self, network, image, prior):
        # bfloat16 halves the time of a step where the processor has instructions for it, and its range is float32's.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            inputs = (image, prior) if network.takes_prior else (image,)
            return network(*inputs).float()

    @torch.no_grad()
    def _own_masks(self, distorted, image):
        """What the averaged network makes of frames before: of all, its first frame; of half, one more after that."""
        network = self.average.module.eval()
        mask = torch.sigmoid(self._logits(network, distorted, torch.zeros_like(distorted[:, :1])))
        half = len(mask) // 2
        if half:
            again = torch.sigmoid(self._logits(network, image[:half], mask[:half]))
            mask[:half] = held.held(again, mask[:half], watch.HOLD)
        return mask

    def _unit(self, batch):
        """A `Batch` on the device as (N,C,H,W) float32 in 0..1, its own indices as booleans."""
        moved = [value.to(self.device, non_blocking=True) for value in batch]
        image, prior, label, band, own, distorted = moved
        pictures = [value.permute(0, 3, 1, 2).float() / 255 for value in (image, distorted)]
        masks = [value[:, None].float() / 255 for value in (prior, label, band)]
        return pictures[0], *masks, own, pictures[1]

    @torch.no_grad()
    def _settle(self):
        """Give the averaged weights batch statistics of their own instead of averaged ones."""
        network = self.average.module
        layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
        network.train()
        for batch in self._batches(self.config.epochs, SETTLING):
            image, prior, *_ = self._unit(batch)
            self._logits(network, image, prior)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        network.eval()

    def learning_rate(self, step):
        """The rate of one step of the current epoch."""
        config, done = self.config, self.epoch + step / max(1, self.config.steps)
        return config.learning_rate * share(config.schedule, done, config.epochs)

    def _save(self):
        whole = {"network": self.network.state_dict(), "average": self.average.state_dict()}
        whole |= {"optimizer": self._optimizer.state_dict(), "epoch": self.epoch}
        state = {"epoch": self.epoch, "config": dataclasses.asdict(self.config)}
        replace(self._out / "weights.pt", lambda path: torch.save(self.average.module.state_dict(), path))
        replace(self._out / "state.json", lambda path: path.write_text(json.dumps(state, indent=2)))
        # Last: a run killed while it writes goes on from the epoch before.
        replace(self._out / "last.pt", lambda path: torch.save(whole, path))

    def _log(self, found):
        row = dict.fromkeys(("epoch", "loss", "seconds", *watch.COLUMNS), "")
        row |= {key: value if isinstance(value, int) else round(float(value), 4) for key, value in found.items()}
        path = self._out / "log.csv"
        new = not path.exists()
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(" ".join(f"{key}={value:g}" for key, value in row.items() if value != ""), flush=True)


def share(schedule, done, epochs):
    """The learning rate's share after `done` of `epochs`; all schedules but the paper's warm up for an epoch.

    "exponential" (the paper's) falls by a tenth every epoch, "cosine" and "linear" fall to zero, "constant" stays.
    """
    if schedule == "exponential":
        return 0.9 ** int(done)
    if done < 1.0:
        return max(done, 0.01)
    left = 1.0 - (done - 1.0) / max(1.0, epochs - 1.0)
    return {"cosine": 0.5 * (1.0 + math.cos(math.pi * (1.0 - left))), "linear": left, "constant": 1.0}[schedule]


def replace(path, write):
    """Write a file beside `path` and put it in its place: whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    write(new)
    new.replace(path)


def has_bfloat16():
    """Whether this processor multiplies bfloat16: elsewhere it is many times slower than float32."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def one_thread(worker):
    """Keep a process that makes batches to one thread."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def running_average(decay):
    """An exponential average whose memory grows with the steps it has seen, so that it forgets the first weights."""

    @torch.no_grad()
    def update(averaged, current, count):
        kept = min(decay, (1 + int(count)) / (10 + int(count)))
        pairs = list(zip(averaged, current, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        if floats:  # lists come one type at a time
            torch._foreach_lerp_([old for old, _ in floats], [new for _, new in floats], 1 - kept)
        for old, new in pairs:
            if not old.is_floating_point():
                old.copy_(new)

    return update


def optimizer(config, network):
    """Adam, or AdamW that decays kernels alone: normalisation and biases stay free."""
    if config.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), config.learning_rate, fused=True)
    kernels = [value for value in network.parameters() if value.ndim > 1]
    others = [value for value in network.parameters() if value.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, config.learning_rate, fused=True)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONFIGS)
    add_option(parser)
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="further folders of pictures to learn from")
    parser.add_argument("--rooms", type=Path, help="folder of JPEG files without people, beside the configuration's")
    parser.add_argument("--labels", type=Path, default=Path("labels"), help="what training.label made (default labels)")
    parser.add_argument(
        "--imagenet",
        type=Path,
        default=Path("../shared/weights/mobilenet_v2_0.35_224_imagenet_backbone.npz"),
        help="weights to start from, where the configuration wants them (docs/develop/training.md)",
    )
    parser.add_argument("--init", type=Path, help="start from these weights: of another run, or of training.selfie")
    parser.add_argument("--out", type=Path, help="folder of the run (default runs/NAME)")
    parser.add_argument("--epochs", type=int, help="instead of the configuration's")
    parser.add_argument("--steps", type=int, help="of an epoch, instead of the configuration's")
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches (default 1; 0: none)")
    arguments = parser.parse_args()
    overrides = {key: value for key in ("epochs", "steps") if (value := getattr(arguments, key)) is not None}
    config = dataclasses.replace(CONFIGS[arguments.name], **overrides)
    torch.manual_seed(config.seed)
    cv2.setNumThreads(1)
    folders = [arguments.data, *(arguments.more if config.taught else [])]
    pictures = Pictures(folders, arguments.labels if config.taught else None, config.licences)
    # No source of the data folder's rooms allows commercial use.
    rooms = rooms_beside(pictures) if config.licences else load_backgrounds(arguments.data)
    if arguments.rooms:
        rooms += read_rooms(arguments.rooms)
    trainer = Trainer(
        config,
        pictures,
        rooms,
        arguments.out or Path("runs") / arguments.name,
        watch.Watch(arguments.data, Portraits(arguments.data, "val")),
        arguments.workers,
    )
    if not trainer.resume():
        start(trainer, config, arguments)
    trainer.run()


def start(trainer, config, arguments):
    """Give a new run its first weights, where it does not begin with random ones."""
    if config.imagenet:
        filled = load_mobilenetv2_imagenet(trainer.network.encoder, arguments.imagenet)
        trainer.start_from(trainer.network.state_dict())
        print(f"{filled} layers from {arguments.imagenet}")
    if arguments.init:
        trainer.start_from(torch.load(arguments.init, map_location=trainer.device, weights_only=True))
        if isinstance(trainer.network, selfie.Selfie) and selfie.is_folded(trainer.network):
            trainer.normalise()


if __name__ == "__main__":
    main()
