"""What an operator is given: does it fit together, and does it run."""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def tool(name: str) -> str:
    """The path of a program, of this environment, the one that `make` sets up or the system's."""
    places = f"{Path(sys.executable).parent}:{ROOT / '.venv' / 'bin'}"
    found = shutil.which(name, path=places) or shutil.which(name)
    assert found, f"{name} is missing: `make system-packages`, or `make deploy-packages` for live tests"
    return found
