"""Settings: where they come from, which one wins, and what is refused."""

from pathlib import Path

import pytest

from portrait.errors import BadSettings
from portrait.settings import Settings, load_settings


def test_defaults_listen_on_this_machine_only() -> None:
    settings = load_settings({}, {})
    assert settings.host == "127.0.0.1"
    assert (settings.http_port, settings.grpc_port) == (8080, 50051)
    assert load_settings({}) == Settings()


def test_the_environment_that_is_given_is_the_one_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT_GRPC_PORT", "2")
    settings = load_settings({}, {"PORTRAIT_HTTP_PORT": "3"})
    assert (settings.http_port, settings.grpc_port) == (3, 50051)
    with pytest.raises(BadSettings, match="PORTRAIT_HTTP_PORT='none'"):
        load_settings({}, {"PORTRAIT_HTTP_PORT": "none"})


def test_a_refusal_does_not_repeat_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "portrait.toml"
    file.write_text("turn_secret = 123456789\n")
    with pytest.raises(BadSettings, match="PORTRAIT_TURN_SECRET=a secret: Input should be a valid string"):
        load_settings({"config": str(file)}, {})


def test_flags_win_over_the_environment_which_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "portrait.toml"
    file.write_text('http_port = 1\ngrpc_port = 1\nhost = "0.0.0.0"\n')
    monkeypatch.setenv("PORTRAIT_HTTP_PORT", "2")
    monkeypatch.setenv("PORTRAIT_GRPC_PORT", "2")
    settings = load_settings({"grpc_port": "3", "config": str(file)})
    assert (settings.host, settings.http_port, settings.grpc_port) == ("0.0.0.0", 2, 3)


def test_an_unknown_name_in_the_environment_is_refused() -> None:
    with pytest.raises(BadSettings, match=r"PORTRAIT_HTPP_PORT: unknown name; expected one of .*PORTRAIT_HTTP_PORT"):
        load_settings({}, {"PORTRAIT_HTPP_PORT": "1"})


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "portrait.toml"
    file.write_text("turn_secrt = 'hunter2'\n")
    with pytest.raises(BadSettings, match=r"portrait\.toml: turn_secrt: unknown name; .*turn_secret") as refused:
        load_settings({"config": str(file)}, {})
    assert "hunter2" not in str(refused.value)


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "portrait.toml"
    file.write_text("http_port: 1\n")
    with pytest.raises(BadSettings, match=r"portrait\.toml: not valid TOML: Expected '='"):
        load_settings({"config": str(file)}, {})


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(BadSettings, match="PORTRAIT_CONFIG='/nowhere': No such file"):
        load_settings({}, {"PORTRAIT_CONFIG": "/nowhere"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("http_port", "65536", "PORTRAIT_HTTP_PORT='65536': Input should be less than or equal to 65535"),
        ("max_sessions", "none", "PORTRAIT_MAX_SESSIONS='none': Input should be a valid integer"),
        ("runtime", "onnx", "PORTRAIT_RUNTIME='onnx': Input should be 'auto', 'litert' or 'tflite-runtime'"),
        ("media_ports", "9-1", "PORTRAIT_MEDIA_PORTS='9-1': expected FIRST-LAST, two ports"),
        ("tls_names", "desk, bü.de", "PORTRAIT_TLS_NAMES='desk, bü.de': got 'bü.de', expected"),
        ("workers", "65", "PORTRAIT_WORKERS='65': Input should be less than or equal to 64"),
    ],
)
def test_a_value_out_of_range_is_refused_with_name_value_and_range(name: str, value: str, message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        load_settings({name: value}, {})


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
