"""Runtimes for network files: one module each, chosen by the file's suffix."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from portrait.core.segmenters.base import Model, Segmenter
from portrait.core.segmenters.catalog import PUBLISHED, Published
from portrait.core.segmenters.ensemble import Ensemble
from portrait.core.segmenters.roi import RoiModel
from portrait.core.segmenters.stills import LOOKS, StillModel
from portrait.core.segmenters.tflite import OWN, Reading, TFLiteModel
from portrait.errors import BadModel, BadOption
from portrait.image.frame import GREY, Frame, Timestamp
from portrait.settings import Settings

__all__ = ["AUTO", "EMBEDDED", "Model", "Models", "Segmenter", "choose_models", "load_models", "open_model", "warm"]

EMBEDDED = Path(__file__).parents[2] / "models"
"""The folder of the network files that come with the package."""

AUTO, LIVE, STILL = "auto", "portrait", "portrait-fine"
"""The setting that chooses no model, and the embedded ones used then: by streams, and by stills and files."""

LARGE_SHARE = 2 / 3
"""Share of the large network in the masks of a model of the catalogue."""

SUFFIXES: Mapping[str, Callable[[Path, str, Reading], Model]] = {".tflite": TFLiteModel}


@dataclass(frozen=True)
class Models:
    """The networks that sessions can select."""

    by_name: Mapping[str, Model]
    default: str
    """The name of the one that streams get when they name none."""
    still: Model | None = None
    """What stills get when they name none: several looks of one of these models. None: the default."""
    finer: str | None = None
    """The name of the one that stands in for the default of streams while the box has CPU to spare, if any."""

    @property
    def by_use(self) -> Mapping[str, Model]:
        """The models that are used where none is named: by "streams" and by "stills"."""
        return {"streams": self.pick(None), "stills": self.pick_still(None)}

    def pick(self, name: str | None) -> Model:
        """The model of that name, the default for None or "".

        Raises:
            BadOption: no model has that name.
        """
        try:
            return self.by_name[name or self.default]
        except KeyError:
            raise BadOption("model", f"unknown model {name!r}; expected one of {sorted(self.by_name)}") from None

    def pick_stream(self, name: str | None) -> Model:
        """The model of that name, or the default, for frames that belong together: it looks where the person is.

        Raises:
            BadOption: no model has that name.
        """
        return RoiModel(self.pick(name))

    def pick_still(self, name: str | None) -> Model:
        """The model of that name; for None or "" what stills get by default.

        Raises:
            BadOption: no model has that name.
        """
        return self.pick(name) if name or self.still is None else self.still

    def pick_video(self) -> Model:
        """The model of files with many pictures, which belong together: that of stills, which looks once at each."""
        return self.pick_stream(self.pick_still(None).name)

    def looks(self, model: Model) -> int:
        """How often `model` uses the one of its name for a picture, at most; a stream's second looks are too rare."""
        return LOOKS if isinstance(model, StillModel) else 1


def open_model(path: Path, runtime: str = "auto", reading: Reading = OWN) -> Model:
    """Load the network file at `path`.

    Raises:
        BadModel: no runtime takes the suffix, or the file cannot be used.
    """
    if path.suffix not in SUFFIXES:
        raise BadModel(f"{path}: unknown suffix {path.suffix!r}; expected one of {sorted(SUFFIXES)}")
    return SUFFIXES[path.suffix](path, runtime, reading)


def load_models(
    chosen: str = AUTO, runtime: str = "auto", reading: Reading = OWN, folder: Path | None = None
) -> Models:
    """The embedded models. `chosen` is AUTO, or the name or the path of the one that is used where none is named.

    A file of another place is added under its name and read as `reading` says. A model of the catalogue, whose file is
    in `folder`, is added and used by stills and files: for streams it is too slow.

    Raises:
        BadModel: a file cannot be used, or `chosen` is none of these.
    """
    models = {path.stem: open_model(path, runtime) for path in sorted(EMBEDDED.glob("*.tflite"))}
    if chosen == AUTO:
        return Models(models, LIVE, StillModel(models[STILL]), finer=STILL)
    if chosen in PUBLISHED and folder is not None:
        models[chosen] = _open_published(PUBLISHED[chosen], folder, runtime, models[STILL])
        return Models(models, LIVE, models[chosen])
    if chosen not in models:
        if not Path(chosen).suffix:
            known = sorted({*models, *PUBLISHED})
            raise BadModel(f"{chosen!r} is neither an embedded model ({known}) nor the path of a file")
        model = open_model(Path(chosen), runtime, reading)
        models[model.name] = model
        chosen = model.name
    return Models(models, chosen)


def choose_models(settings: Settings) -> Models:
    """The models as settings want them.

    Raises:
        BadModel: as `load_models`.
    """
    reading = Reading(float(settings.model_low), settings.person_classes, settings.model_logits)
    return load_models(settings.model, settings.runtime, reading, settings.models_folder)


def _open_published(published: Published, folder: Path, runtime: str, fine: Model) -> Model:
    """The large model averaged with `fine`, both looking at every picture and at its mirror image."""
    place = published.place(folder)
    if not place.exists():
        fetching = f"run `portrait models fetch {published.name}`, or {published.by_hand(folder)}"
        raise BadModel(f"model {published.name!r} is not on this machine: {fetching}")
    published.check(place.read_bytes(), str(place))
    large = open_model(place, runtime, published.reading)
    return StillModel(Ensemble(published.name, [(large, LARGE_SHARE), (fine, 1 - LARGE_SHARE)]))


def warm(models: Models) -> None:
    """Run one inference of each default model, so that the first client does not wait for the runtime's lazy set-up.

    Raises:
        SegmentationFailed: a model loads but does not work.
    """
    for model in dict.fromkeys(models.by_use.values()):
        _warm(model)


def _warm(model: Model) -> None:
    segmenter = model.open()
    grey = np.full((model.height, model.width), GREY, np.uint8)
    segmenter.segment(Frame(grey, grey[::2, ::2], grey[::2, ::2], Timestamp(0, Fraction(1)), 0.0))
    segmenter.close()
