"""A service that accepts work, and what can be changed of it meanwhile."""

import asyncio
import logging
from typing import Any

from portrait import __version__
from portrait.admission.capacity import Capacity
from portrait.core.segmenters import Models, load_models, warm
from portrait.image.backgrounds import Backgrounds
from portrait.logs import log_event, set_level
from portrait.metrics import Metrics
from portrait.server.calibration import load_costs
from portrait.server.model_check import try_model
from portrait.sessions.registry import Sessions
from portrait.settings import Settings

logger = logging.getLogger(__name__)

IN_PLACE = ("model", "runtime", "backgrounds", "drain_seconds", "log_level")
"""What `reload` changes. Tokens, keys and certificates need none: they are looked at with every call."""


class RunningService:
    """Given by `run_service`. `settings` are those in force."""

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
        """What new sessions can ask for."""
        return self.sessions.models

    async def reload(self, settings: Settings) -> None:
        """Bring in force what can be without ending a stream: IN_PLACE, and the model's files as they are now.

        Open sessions keep the network they have; it is given up with the last of them. Whatever else differs is named
        in the log: it needs a restart.

        Raises:
            BadModel, OSError: a file cannot be used; nothing has changed then.
        """
        await try_model(settings.model, settings.runtime)
        models = await asyncio.to_thread(load_models, settings.model, settings.runtime)
        await asyncio.to_thread(warm, models.pick(None))
        pictures = await asyncio.to_thread(Backgrounds, settings.backgrounds)
        if self._capacity.counts_cores:
            costs = await asyncio.to_thread(load_costs, models, self.sessions.board.folder)
            self._capacity.update_costs(costs)
        self.sessions.models = models
        self._backgrounds.take_over(pictures)
        default = models.pick(None)
        self._metrics.identify(__version__, default.name, default.runtime)
        set_level(settings.log_level)
        self.settings = self.settings.model_copy(update={name: getattr(settings, name) for name in IN_PLACE})
        left = [name for name, value in _values(settings).items() if value != _values(self.settings)[name]]
        log_event(logger, logging.INFO, "reloaded", model=default.name, needs_restart=",".join(left) or "nothing")


def _values(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json")
