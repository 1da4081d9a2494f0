"""The compose file: its schema, and that it, its .env, and the other folders fit together."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from portrait.settings import PREFIX, Settings
from tests.deploy import DEPLOY, tool

COMPOSE = DEPLOY / "compose" / "compose.yml"
LAN = COMPOSE.with_name("lan.yml")
SITE = "./site"
"""The operator's own folder."""

files = pytest.mark.parametrize("file", [COMPOSE, LAN], ids=lambda file: file.name)


def services(file: Path) -> Any:
    return yaml.safe_load(file.read_text())["services"]


@files
def test_it_keeps_to_the_compose_specification(file: Path) -> None:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", file]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_every_variable_has_its_value_in_the_one_env_file() -> None:
    given = set(re.findall(r"^(\w+)=", (COMPOSE.parent / ".env").read_text(), re.MULTILINE))
    used = set(re.findall(r"(?<!\$)\$\{(\w+)\}", COMPOSE.read_text() + LAN.read_text()))
    assert used == given


def test_every_folder_it_mounts_is_there() -> None:
    both = [*services(COMPOSE).values(), *services(LAN).values()]
    sources = [volume.split(":")[0] for service in both for volume in service.get("volumes", [])]
    shipped = [source for source in sources if source.startswith(".") and source != SITE]
    assert len(shipped) >= 8
    for source in shipped:
        assert (COMPOSE.parent / source).exists(), source


@files
def test_the_service_is_given_only_settings_it_knows(file: Path) -> None:
    for name in services(file)["portrait"]["environment"]:
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields


def test_the_service_has_no_more_rights_than_it_needs() -> None:
    service = services(COMPOSE)["portrait"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
