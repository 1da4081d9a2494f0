"""One image for all tests here."""

import os
from pathlib import Path

import pytest

from tests.deploy import ROOT
from tests.deploy.live.engine import Engine


@pytest.fixture(scope="session")
def engine() -> Engine:
    """podman; DEPLOY_TEST_FOLDER is where it keeps images, some gigabytes."""
    return Engine(Path(os.environ.get("DEPLOY_TEST_FOLDER", ROOT / "build" / "deploy-test")))


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """The Dockerfile, built. DEPLOY_TEST_BASE names the base image; without, Debian's packages stand in for it."""
    return engine.build(os.environ.get("DEPLOY_TEST_BASE"))
