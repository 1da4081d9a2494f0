"""The network: model, data, losses, training, evaluation and export. See docs/develop/training.md."""
