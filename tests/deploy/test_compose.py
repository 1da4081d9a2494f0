"""The compose file: its schema, and that it, its .env, and the other folders fit together."""

import re
import subprocess

import yaml

from portrait.settings import PREFIX, Settings
from tests.deploy import DEPLOY, tool

COMPOSE = DEPLOY / "compose" / "compose.yml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]


def test_it_keeps_to_the_compose_specification() -> None:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_every_variable_has_its_value_in_the_one_env_file() -> None:
    given = set(re.findall(r"^(\w+)=", (COMPOSE.parent / ".env").read_text(), re.MULTILINE))
    used = set(re.findall(r"(?<!\$)\$\{(\w+)\}", COMPOSE.read_text()))
    assert used == given


def test_every_folder_it_mounts_is_there() -> None:
    sources = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    files = [source for source in sources if source.startswith(".")]
    assert len(files) >= 7
    for source in files:
        assert (COMPOSE.parent / source).exists(), source


def test_the_service_is_given_only_settings_it_knows() -> None:
    for name in SERVICES["portrait"]["environment"]:
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields


def test_the_service_has_no_more_rights_than_it_needs() -> None:
    service = SERVICES["portrait"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
