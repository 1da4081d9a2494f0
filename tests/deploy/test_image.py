"""The Dockerfile and what it pins."""

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy import DEPLOY, ROOT, tool

PYTHON = "3.11"
"""Of the image."""

LOCKS = [DEPLOY / "requirements.lock", DEPLOY / "build.lock"]


def pinned(lock: Path) -> dict[str, list[str]]:
    """Name to versions: one, or one for each range of Pythons."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", lock.read_text(), re.MULTILINE):
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


def test_the_modules_that_the_build_imports_are_there() -> None:
    """The last step of the build proves by them that nothing needed was removed."""
    imported = re.findall(r"portrait(?:\.\w+)+", re.findall(r'-c "import (.*?)"', (ROOT / "Dockerfile").read_text())[0])
    assert len(imported) >= 3
    for name in imported:
        assert importlib.util.find_spec(name) is not None, name


def test_the_dockerfile_passes_its_linter() -> None:
    result = subprocess.run([tool("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_image_runs_without_root_and_says_what_it_is() -> None:
    final = (ROOT / "Dockerfile").read_text().rpartition("FROM ")[2]
    for line in ("USER 10001:10001", "HEALTHCHECK ", 'ENTRYPOINT ["tini", "--", "portrait"]', "PORTRAIT_HOST=0.0.0.0"):
        assert line in final
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in final
    assert "pip" not in final, "what installs is left in the first stage"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_wheel_is_pinned_by_hash_and_no_index_is_named(lock: Path) -> None:
    text = lock.read_text()
    requirements = re.split(r"\n(?=[a-z])", text)[1:]
    assert len(requirements) > 20
    for requirement in requirements:
        assert "--hash=sha256:" in requirement, requirement.splitlines()[0]
    for word in ("http:", "https:", "file:", "--find-links", "--index-url", "--extra-index-url"):
        assert word not in text


def test_the_lock_holds_what_the_package_asks_for() -> None:
    project, client = (
        tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (ROOT, ROOT / "clients/python")
    )
    versions = pinned(DEPLOY / "requirements.lock")
    extras = project["optional-dependencies"]
    others = client["dependencies"] + extras["mqtt"] + extras["tracing"]
    for requirement in map(Requirement, project["dependencies"] + others):
        if requirement.name == client["name"]:
            continue  # built beside the server
        if requirement.marker is not None and not requirement.marker.evaluate({"python_version": PYTHON}):
            continue
        for version in versions[canonicalize_name(requirement.name)]:
            assert requirement.specifier.contains(version), f"{requirement} but {version} in the lock: make lock"


def test_no_training_package_and_no_build_tool_is_in_the_lock() -> None:
    unwanted = {"torch", "tensorflow-cpu", "keras", "albumentations", "litert-torch", "pip", "hatchling", "pytest"}
    assert not unwanted & pinned(DEPLOY / "requirements.lock").keys()
