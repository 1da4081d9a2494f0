"""What the doctor says of the box and of the way between it and a client elsewhere; relays are in tests/network."""

import socket
from pathlib import Path

import pytest

from portrait.cli import main
from portrait.doctor import Check
from portrait.doctor.reachability import examine_reachability
from portrait.security import open_security
from portrait.settings import Settings, load_settings
from tests.credentials import Authority
from tests.ports import free_ports


def found(settings: Settings) -> dict[str, list[Check]]:
    checks: dict[str, list[Check]] = {}
    for check in examine_reachability(settings):
        checks.setdefault(check.name, []).append(check)
    return checks


def only(settings: Settings, name: str) -> Check:
    [check] = found(settings)[name]
    return check


@pytest.mark.parametrize(
    ("settings", "ok", "finding"),
    [
        (Settings(), True, "this machine only"),
        (Settings(host="0.0.0.0", insecure=True), False, "https pages only"),
    ],
)
def test_who_can_come_at_all(settings: Settings, ok: bool, finding: str) -> None:
    check = only(settings, "listening")
    assert check.ok == ok
    assert finding in check.finding


def test_advertised_addresses_are_told_apart() -> None:
    settings = load_settings({"advertised_addresses": "127.0.0.1,0.0.0.0,10.1.2.3,8.8.8.8"}, {})
    loopback, nobody, private, public = found(settings)["advertised"]
    assert (loopback.ok, nobody.ok, private.ok, public.ok) == (False, False, True, True)
    assert "from this machine only" in loopback.finding
    assert "private network" in private.finding
    assert "there must be forwarded to the same ports here" in public.finding


def test_media_ports_are_counted_against_what_is_wanted() -> None:
    ports = free_ports(4)
    settings = Settings(media_ports=f"{ports[0]}-{ports[-1]}", max_sessions=1, max_viewers=0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", ports[0]))
        assert "3 of 4 free" in only(settings, "media ports").finding
    few = only(settings.model_copy(update={"max_viewers": 100}), "media ports")
    assert not few.ok
    assert not few.fatal
    assert only(Settings(media_ports="0-0"), "media ports").ok


def test_the_shared_media_ports_must_be_free() -> None:
    ports = free_ports(2)
    settings = Settings(media_port=ports[0], workers=2)
    assert f"UDP and TCP {ports[0]}-{ports[0] + 2}: free" in only(settings, "media ports").finding
    for name, kind in (("UDP", socket.SOCK_DGRAM), ("TCP", socket.SOCK_STREAM)):
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("0.0.0.0", ports[1]))
            if kind == socket.SOCK_STREAM:
                taken.listen()
            check = only(settings, "media ports")
            without = only(settings.model_copy(update={"media_tcp": False}), "media ports")
        assert not check.ok
        assert check.finding.endswith(f"{name} {ports[1]} is taken")
        assert without.ok is (name == "TCP")


def test_the_certificate_is_judged_as_a_client_would(tmp_path: Path) -> None:
    authority = Authority.new()
    certificate, key = authority.issue(tmp_path, "box")
    good = only(Settings(tls_certificate=certificate, tls_key=key), "certificate")
    assert good.ok
    assert "localhost" in good.finding
    certificate, key = authority.issue(tmp_path, "old", days=-0.5)
    assert only(Settings(tls_certificate=certificate, tls_key=key), "certificate").finding == "has expired"
    certificate, key = authority.issue(tmp_path, "tests")  # the authority's own name: issuer and subject are the same
    self_signed = only(Settings(tls_certificate=certificate, tls_key=key), "certificate")
    assert not self_signed.ok
    assert "self-signed" in self_signed.finding
    own = Settings(tls="auto", data=tmp_path / "data")
    assert f"the first start makes an authority in {tmp_path}/data/authority" in only(own, "certificate").finding
    open_security(own)
    assert only(own, "certificate").ok
    assert "SHA-256" in only(own, "certificate").finding


def test_looking_at_a_box_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root it would leave files that the service's user cannot read, and the service would not start."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    for command in (["doctor", "--http-port", "0", "--grpc-port", "0"], ["models"], ["bench", "--frames", "1"]):
        assert main([*command, "--tls", "auto", "--json"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_that_cannot_be_used_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "authority").write_text("not a folder")
    assert main(["doctor", "--http-port", "0", "--grpc-port", "0", "--tls", "auto", "--data", str(tmp_path)]) == 1
    assert "FAIL security" in capsys.readouterr().out


def test_ice_servers_that_make_no_sense_are_fatal_and_silent_ones_are_not() -> None:
    assert only(Settings(), "ice servers").ok
    wrong = only(load_settings({"ice_urls": "turn:box"}, {}), "ice servers")
    assert (wrong.ok, wrong.fatal) == (False, True)
    silent = only(load_settings({"ice_urls": "turn:127.0.0.1:9?transport=tcp", "turn_secret": "a secret"}, {}),
                  "turn:127.0.0.1:9?transport=tcp")  # fmt: skip
    assert (silent.ok, silent.fatal) == (False, False)
