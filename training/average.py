"""The mean of the weights of several runs: `python -m training.average RUN [RUN ...] TARGET`.

Networks that were trained on from the same weights are close enough to be averaged, and their mean is often better than
either (arXiv:2203.05482). Batch normalisation is folded into the kernels first: the mean of the statistics would be
those of neither. TARGET is a run for `training.export`, with the settings of the last RUN.
"""

import argparse
import copy
import json
from pathlib import Path

import torch

from training import export
from training.layers import ConvBN


@torch.no_grad()
def fold(network):
    """A copy of a network whose batch normalisation only adds a bias: what it did is in the kernels before it."""
    made = copy.deepcopy(network)
    for layer in made.modules():
        if isinstance(layer, ConvBN):
            bn = layer.bn
            gain = bn.weight / (bn.running_var + bn.eps).sqrt()
            layer.conv.weight.mul_(gain[:, None, None, None])
            bn.bias.sub_(bn.running_mean * gain)
            bn.weight.fill_(1.0)
            bn.running_mean.zero_()
            bn.running_var.fill_(1.0 - bn.eps)
    return made


@torch.no_grad()
def average(networks):
    """A network with the mean of the folded weights of `networks`, which have the same layers."""
    states = [fold(network).state_dict() for network in networks]
    made = fold(networks[0])
    means = {
        name: sum(state[name] for state in states) / len(states)
        for name, value in states[0].items()
        if value.is_floating_point()
    }
    made.load_state_dict(states[0] | means)
    return made.eval()


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a training run")
    parser.add_argument("target", type=Path, metavar="TARGET", help="folder to write")
    arguments = parser.parse_args()
    made = average([export.load(run)[0] for run in arguments.runs])
    arguments.target.mkdir(parents=True, exist_ok=True)
    torch.save(made.state_dict(), arguments.target / "weights.pt")
    config = json.loads((arguments.runs[-1] / "state.json").read_text())
    (arguments.target / "state.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
