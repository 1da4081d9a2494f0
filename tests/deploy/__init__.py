"""What an operator is given: does it fit together, and does it run."""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def tool(name: str) -> str:
    """The path of a program, of this environment or the system's."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is missing: `make system-packages`, or `make deploy-packages` for live tests"
    return found
