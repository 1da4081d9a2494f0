"""Runtimes for network files: one module each, chosen by the file's suffix."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from portrait.core.segmenters.base import Model, Segmenter
from portrait.core.segmenters.tflite import TFLiteModel
from portrait.errors import BadModel, BadOption
from portrait.image.frame import GREY, Frame, Timestamp

__all__ = ["EMBEDDED", "Model", "Models", "Segmenter", "load_models", "open_model", "warm"]

EMBEDDED = Path(__file__).parents[2] / "models"
"""The folder of the network files that come with the package."""

DEFAULT = "portrait"
"""The embedded model sessions get when they name none."""

SUFFIXES: Mapping[str, Callable[[Path, str], Model]] = {".tflite": TFLiteModel}


@dataclass(frozen=True)
class Models:
    """The networks that sessions can select."""

    by_name: Mapping[str, Model]
    default: str

    def pick(self, name: str | None) -> Model:
        """The model of that name, the default for None or "".

        Raises:
            BadOption: no model has that name.
        """
        try:
            return self.by_name[name or self.default]
        except KeyError:
            raise BadOption("model", f"unknown model {name!r}; expected one of {sorted(self.by_name)}") from None


def open_model(path: Path, runtime: str = "auto") -> Model:
    """Load the network file at `path`.

    Raises:
        BadModel: no runtime takes the suffix, or the file cannot be used.
    """
    if path.suffix not in SUFFIXES:
        raise BadModel(f"{path}: unknown suffix {path.suffix!r}; expected one of {sorted(SUFFIXES)}")
    return SUFFIXES[path.suffix](path, runtime)


def load_models(default: str = DEFAULT, runtime: str = "auto") -> Models:
    """The embedded models; `default` is the name of one of them or the path of a file, which is added.

    Raises:
        BadModel: a file cannot be used, or `default` is neither.
    """
    models = {path.stem: open_model(path, runtime) for path in sorted(EMBEDDED.glob("*.tflite"))}
    if default not in models:
        if not Path(default).suffix:
            raise BadModel(f"{default!r} is neither an embedded model ({sorted(models)}) nor the path of a file")
        model = open_model(Path(default), runtime)
        models[model.name] = model
        default = model.name
    return Models(models, default)


def warm(model: Model) -> None:
    """Run one inference, so that the first client does not wait for the runtime's lazy set-up.

    Raises:
        SegmentationFailed: the model loads but does not work.
    """
    segmenter = model.open()
    grey = np.full((model.height, model.width), GREY, np.uint8)
    segmenter.segment(Frame(grey, grey[::2, ::2], grey[::2, ::2], Timestamp(0, Fraction(1)), 0.0))
    segmenter.close()
