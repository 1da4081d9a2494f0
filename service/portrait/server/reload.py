"""A running service, and what can be changed while it runs."""

import asyncio
import logging
from typing import Any

from portrait import __version__
from portrait.admission.capacity import Capacity
from portrait.core.segmenters import Models, choose_models, warm
from portrait.image.backgrounds import Backgrounds
from portrait.logs import log_event, set_level
from portrait.metrics import Metrics
from portrait.server.calibration import load_costs
from portrait.server.model_check import check_model
from portrait.sessions.registry import Sessions
from portrait.settings import Settings

logger = logging.getLogger(__name__)

IN_PLACE = (
    "model", "model_low", "model_person", "model_logits", "runtime", "backgrounds", "drain_seconds", "log_level",
)  # fmt: skip
"""The settings that `reload` applies. Tokens, keys and certificates need no reload: their files are watched."""


class RunningService:
    """The service that `run_service` yields. `settings` are those in use."""

    def __init__(
        self,
        settings: Settings,
        sessions: Sessions,
        backgrounds: Backgrounds,
        capacity: Capacity,
        metrics: Metrics,
        ports: tuple[int, int],
    ) -> None:
        self.settings, self.sessions = settings, sessions
        self._backgrounds, self._capacity, self._metrics = backgrounds, capacity, metrics
        self.http_port, self.grpc_port = ports

    @property
    def models(self) -> Models:
        """The models that new sessions may use."""
        return self.sessions.models

    async def reload(self, settings: Settings) -> None:
        """Apply what can change without ending a stream: IN_PLACE, and the model files as they are now.

        Open sessions keep their network, which is freed with the last of them. Other settings that differ are named in
        the log; they need a restart. Everything that can fail comes first, so that an error leaves all as it was.

        Raises:
            BadModel, OSError: a file cannot be used.
        """
        await check_model(settings)
        models = await asyncio.to_thread(choose_models, settings)
        await asyncio.to_thread(warm, models)
        pictures = await asyncio.to_thread(Backgrounds, settings.backgrounds)
        counts = self._capacity.counts_cores
        costs = await asyncio.to_thread(load_costs, models, self.sessions.shared.folder) if counts else None
        if costs is not None:
            self._capacity.update_costs(costs)
        self.sessions.models = models
        self._backgrounds.take_over(pictures)
        identify(self._metrics, models)
        set_level(settings.log_level)
        self.settings = self.settings.model_copy(update={name: getattr(settings, name) for name in IN_PLACE})
        left = [name for name, value in _values(settings).items() if value != _values(self.settings)[name]]
        log_event(logger, logging.INFO, "reloaded", model=models.default, needs_restart=",".join(left) or "nothing")


def identify(metrics: Metrics, models: Models) -> None:
    """Show the version and the default models in the metrics."""
    metrics.identify(__version__, [(model.name, model.runtime, use) for use, model in models.by_use.items()])


def _values(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json")
