"""`python -m portrait.server.model_check SETTINGS`: try a model in a separate process.

A damaged file can crash the interpreter, and with it every stream of the process.
"""

import asyncio
import json
import sys
from asyncio import timeout

from portrait.core.segmenters import choose_models, warm
from portrait.errors import BadModel, PortraitError
from portrait.settings import Settings, make_settings
from portrait.workers.process import describe

NEEDED = {"model", "model_low", "model_person", "model_logits", "runtime", "data"}
"""The settings that choose models."""

CHECK_SECONDS = 60.0


async def check_model(settings: Settings) -> None:
    """Load the models and run the default ones once, in another process.

    Raises:
        BadModel: that failed; says why.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "portrait.server.model_check", settings.model_dump_json(include=NEEDED),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        async with timeout(CHECK_SECONDS):
            _, said = await process.communicate()
    except TimeoutError:
        raise BadModel(f"{settings.model}: the model was not loaded and run once within {CHECK_SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 2:
        raise BadModel(said.decode("utf-8", "replace").strip().rpartition("\n")[2])
    if process.returncode:
        raise BadModel(f"{settings.model}: the process that tried it was {describe(process.returncode)}")


def main(arguments: list[str]) -> int:
    """Check; returns the exit status: 0, or 2 with the reason as the last line of standard error."""
    try:
        warm(choose_models(make_settings(json.loads(arguments[0]))))
    except PortraitError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
