"""Settings of an operator: flags win over the environment, which wins over the file and these defaults."""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    DirectoryPath,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from portrait.errors import BadSettings

PREFIX = "PORTRAIT_"
FILE_VARIABLE = "PORTRAIT_CONFIG"
"""Names the settings file, a TOML table with the lower-case names of `Settings`."""

FILE_VALUES, ENVIRONMENT_VALUES = "values of the settings file", "values of the environment"
"""Keys that carry these values to `settings_customise_sources`, which the library calls; not names of settings."""

OURS = "Value error, "
"""What the library puts before the message of a validator of this file."""

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,]+")

TOPIC = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


def _check_ports(text: str) -> str:
    if not text:
        return text
    first, dash, last = text.partition("-")
    if not (dash and first.isdigit() and last.isdigit() and int(first) <= int(last) <= 65535):
        raise ValueError("expected FIRST-LAST, two ports from 0 to 65535 in ascending order")
    return text


def _check_addresses(text: str) -> str:
    for address in _list(text):
        ipaddress.ip_address(address)
    return text


def _check_address_or_none(text: str) -> str:
    if text:
        ipaddress.ip_address(text)
    return text


def _check_names(text: str) -> str:
    for name in _list(text):
        if not name.isascii():
            raise ValueError(f"got {name!r}, expected names in the ASCII form of certificates (xn--...)")
    return text


def _check_origins(text: str) -> str:
    for origin in _list(text):
        if origin != "*" and ORIGIN.fullmatch(origin) is None:
            raise ValueError(f"got {origin!r}, expected SCHEME://HOST or SCHEME://HOST:PORT, or *")
    return text


def _check_classes(text: str) -> str:
    for number in _list(text):
        if not (number.isdecimal() and int(number) < 256):
            raise ValueError(f"got {number!r}, expected numbers from 0 to 255")
    return text


def _check_registry(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected the address of a registry, http:// or https://")
    return text


def _check_web(secret: SecretStr) -> SecretStr:
    return _check_address(secret, ("http", "https"))


def _check_broker(secret: SecretStr) -> SecretStr:
    return _check_address(secret, ("mqtt", "mqtts"))


def _check_address(secret: SecretStr, schemes: tuple[str, ...]) -> SecretStr:
    if not secret.get_secret_value():
        return secret
    expected = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(secret.get_secret_value())
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        usable = False
    if not usable:
        raise ValueError(f"expected an address that begins with {expected}")
    return secret


def _check_topic(text: str) -> str:
    if TOPIC.fullmatch(text) is None:
        raise ValueError("expected an MQTT topic of letters, digits, _, - and /")
    return text


def _check_topic_or_none(text: str) -> str:
    return _check_topic(text) if text else text


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _check_access(path: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(path)
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ValueError(f"cannot be accessed: {error.strerror}") from error


File = Annotated[FilePath, WrapValidator(_check_access)]
Folder = Annotated[DirectoryPath, WrapValidator(_check_access)]
PortRange = Annotated[str, AfterValidator(_check_ports)]
Addresses = Annotated[str, AfterValidator(_check_addresses)]
Classes = Annotated[str, AfterValidator(_check_classes)]
Registry = Annotated[str, AfterValidator(_check_registry)]
AddressOrNone = Annotated[str, AfterValidator(_check_address_or_none)]
Names = Annotated[str, AfterValidator(_check_names)]
WebAddress = Annotated[SecretStr, AfterValidator(_check_web)]
BrokerAddress = Annotated[SecretStr, AfterValidator(_check_broker)]
Topic = Annotated[str, AfterValidator(_check_topic)]
TopicOrNone = Annotated[str, AfterValidator(_check_topic_or_none)]
Origins = Annotated[str, AfterValidator(_check_origins)]


class Settings(BaseSettings):
    """One value per setting: `PORTRAIT_HTTP_PORT` sets `http_port`. SIGHUP changes `server.reload.IN_PLACE`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    http_port: int = Field(8080, ge=0, le=65535, description="TCP port of page, WebRTC signalling, stills and metrics.")
    grpc_port: int = Field(50051, ge=0, le=65535, description="TCP port of gRPC.")
    media_port: int = Field(
        50000,
        ge=0,
        le=65535 - 64,
        description="UDP and TCP port of WebRTC media; each further worker has the next; 0: any.",
    )
    media_tcp: bool = Field(True, description="Offer WebRTC media over TCP too, for clients without UDP.")
    media_ports: PortRange = Field(
        "", description="UDP ports, FIRST-LAST, one per connection, in place of PORTRAIT_MEDIA_PORT; 0-0: any."
    )
    advertised_addresses: Addresses = Field("", description="Further IP addresses offered for media, comma-separated.")
    cameras: File | None = Field(None, description="YAML file that declares cameras: names and addresses.")
    camera: SecretStr = Field(SecretStr(""), description="More cameras, NAME=URL, with spaces between them.")
    ice_urls: str = Field("", description="STUN and TURN servers for clients: stun:, turn:, comma-separated.")
    turn_secret: SecretStr = Field(SecretStr(""), description="Secret shared with TURN (coturn's static-auth-secret).")
    turn_seconds: float = Field(3600.0, ge=60, le=86_400, description="How long TURN credentials are valid.")
    origins: Origins = Field("", description="Origins of other pages that may call, comma-separated; *: all.")
    workers: int = Field(0, ge=0, le=64, description="Worker processes; 0: one per core less one, at least one.")
    cluster_peers: Names = Field(
        "", description="Names and addresses that lead to all pods of the service, comma-separated; empty: one pod."
    )
    cluster_address: AddressOrNone = Field("", description="IP address of this pod, at which the others reach it.")
    cluster_port: int = Field(
        8444,
        ge=1,
        le=65534,
        description="TCP port of HTTP between pods, the same on all; gRPC between them has the next.",
    )
    cluster_secret: SecretStr = Field(SecretStr(""), description="Secret that the pods share, 32 characters or more.")
    pin_workers: bool = Field(False, description="Restrict each worker to its own share of the cores.")
    model: str = Field(
        "auto", min_length=1, description="Model: a name or a file; auto: portrait, for stills and files portrait-fine."
    )
    model_low: Literal["0", "-1"] = Field("0", description="What a model file takes as black; white is 1.")
    model_person: Classes = Field("", description="Output classes of a model file that are the person: 1,2,3.")
    model_logits: bool = Field(False, description="Whether a model file ends before its softmax or sigmoid.")
    model_registry: Registry = Field(
        "https://registry.npmjs.org", description="npm registry that `portrait models fetch` downloads from."
    )
    runtime: Literal["auto", "litert", "tflite-runtime"] = Field("auto", description="TFLite interpreter.")
    segment: Literal["always", "on_change"] = Field(
        "on_change",
        description="When live streams run the network: for every frame, or when the contour may have moved.",
    )
    backgrounds: Folder | None = Field(None, description="Folder with more background pictures.")
    max_sessions: int = Field(64, ge=1, le=10_000, description="Open sessions, at most; more are refused.")
    cpu_share: float = Field(0.8, ge=0, le=1, description="Share of the CPU that streams may use; 0: not counted.")
    quality_steps: int = Field(4, ge=0, le=4, description="Levels that quality may go down before streams are refused.")
    max_viewers: int = Field(32, ge=0, le=10_000, description="WHEP viewers, at most; more are refused.")
    max_frame_pixels: int = Field(1920 * 1088, ge=256, le=2**26, description="Pixels of a stream's frame, at most.")
    max_still_pixels: int = Field(25_000_000, ge=256, le=2**28, description="Pixels of a still picture, at most.")
    max_pixels_in_flight: int = Field(
        25_000_000, ge=256, le=2**30, description="Pixels of stills and backgrounds in memory at once, in each worker."
    )
    max_still_bytes: int = Field(32 * 2**20, ge=1024, le=2**30, description="Bytes of an HTTP request, at most.")
    idle_seconds: float = Field(15.0, gt=0, le=3600, description="A stream ends after this long without a frame.")
    hang_seconds: float = Field(20.0, gt=0, le=3600, description="A model silent for this long ends its session.")
    drain_seconds: float = Field(5.0, ge=0, le=3600, description="How long open sessions may continue after SIGTERM.")
    tls: Literal["files", "auto"] = Field("files", description="TLS from the files below, or an own authority.")
    tls_names: Names = Field("", description="More names and addresses for that authority, comma-separated.")
    data: Path | None = Field(None, description="Folder for what the service stores: its authority.")
    tls_certificate: File | None = Field(None, description="PEM file with the server's certificate and its chain.")
    tls_key: File | None = Field(None, description="PEM file with its key, unencrypted.")
    tls_client_ca: File | None = Field(None, description="PEM file with the authority of client certificates.")
    tokens: File | None = Field(None, description="File with bearer tokens: a name and a token on each line.")
    jwt_keys: File | None = Field(None, description="File with keys for signed tokens: a JWK set, or PEM.")
    jwt_audience: str | None = Field(None, min_length=1, description="What the aud of a signed token must contain.")
    jwt_issuer: str | None = Field(None, min_length=1, description="What the iss of a signed token must be.")
    insecure: bool = Field(False, description="Allow other machines without authentication or TLS.")
    presence_area: float = Field(0.01, gt=0, le=1, description="Share of a picture from which on a person is present.")
    presence_enter_seconds: float = Field(0.5, ge=0.1, le=60, description="A person seen this long is present.")
    presence_leave_seconds: float = Field(3.0, ge=0.1, le=3600, description="Nobody seen this long: nobody is present.")
    max_event_listeners: int = Field(32, ge=0, le=10_000, description="Listeners to events in each worker, at most.")
    webhook: WebAddress = Field(SecretStr(""), description="Address that events are posted to, http:// or https://.")
    webhook_secret: SecretStr = Field(SecretStr(""), description="Secret that signs what is posted there.")
    mqtt: BrokerAddress = Field(SecretStr(""), description="MQTT broker for events: mqtt[s]://USER:PASSWORD@HOST:PORT.")
    mqtt_topic: Topic = Field("portrait", description="What the topics at the broker begin with.")
    mqtt_discovery: TopicOrNone = Field("homeassistant", description="Home Assistant's discovery prefix; empty: none.")
    tracing: bool = Field(False, description="Send one OpenTelemetry span per session; see OTEL_*.")
    otlp_metrics: bool = Field(False, description="Push the metrics over OTLP, each minute; see OTEL_*.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest severity to log.")
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people or for programs.")

    @property
    def media_port_range(self) -> range:
        """`media_ports` as a range; empty for any port, and where they are not used."""
        first, last = map(int, (self.media_ports or "0-0").split("-"))
        return range(first, last + 1) if last else range(0)

    @property
    def advertised(self) -> tuple[str, ...]:
        """`advertised_addresses`, one by one."""
        return _list(self.advertised_addresses)

    @property
    def data_folder(self) -> Path:
        """`data`, or the place of the XDG base directory specification for a program's data."""
        return self.data or Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "portrait"

    @property
    def models_folder(self) -> Path:
        """Where `portrait models fetch` puts models."""
        return self.data_folder / "models"

    @property
    def person_classes(self) -> tuple[int, ...]:
        """`model_person`, one by one."""
        return tuple(map(int, _list(self.model_person)))

    @property
    def encrypted(self) -> bool:
        """Whether the servers use TLS."""
        return self.tls == "auto" or self.tls_certificate is not None

    @property
    def cluster_peer_names(self) -> tuple[str, ...]:
        """`cluster_peers`, one by one."""
        return _list(self.cluster_peers)

    @property
    def own_names(self) -> tuple[str, ...]:
        """Names and addresses of the box besides those that it finds out."""
        return *_list(self.tls_names), *self.advertised

    @property
    def ice_servers(self) -> tuple[str, ...]:
        """`ice_urls`, one by one."""
        return _list(self.ice_urls)

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """`origins`, one by one."""
        return _list(self.origins)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Set the order: flags, environment, file."""
        assert isinstance(init_settings, InitSettingsSource)
        file, environ = (init_settings.init_kwargs.pop(name, None) for name in (FILE_VALUES, ENVIRONMENT_VALUES))
        given = env_settings if environ is None else InitSettingsSource(settings_cls, environ)
        return init_settings, given, InitSettingsSource(settings_cls, file or {})


def load_settings(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """Load the settings from flags, environment and file.

    Raises:
        BadSettings: an unknown name, or a value out of range; says name, value and range.
    """
    environ = os.environ if environ is None else environ
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {FILE_VARIABLE}
    if unknown := sorted(name for name in environ if name.startswith(PREFIX) and name not in known):
        raise BadSettings(f"{unknown[0]}: unknown name; expected one of {', '.join(sorted(known))}")
    file = flags.get("config") or environ.get(FILE_VARIABLE)
    given = {name: value for name, value in flags.items() if name in Settings.model_fields and value is not None}
    variables = {name: PREFIX + name.upper() for name in Settings.model_fields}
    given[ENVIRONMENT_VALUES] = {name: environ[variable] for name, variable in variables.items() if variable in environ}
    given[FILE_VALUES] = _read_file(file) if file else {}
    return make_settings(given)


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Make settings of these values by name; the others come from the environment or are defaults.

    Raises:
        BadSettings: a value out of range; says name, value and range.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise BadSettings("; ".join(map(_say, error.errors()))) from error


def _say(problem: ErrorDetails) -> str:
    """Say what is wrong with a setting: its name, its value unless that is secret, what is expected."""
    name = ".".join(map(str, problem["loc"]))
    field = Settings.model_fields.get(name)
    got = "a secret" if field is not None and field.annotation is SecretStr else repr(problem.get("input"))
    return f"{PREFIX}{name.upper()}={got}: {problem['msg'].removeprefix(OURS)}"


def _read_file(file: str) -> dict[str, Any]:
    try:
        values = tomllib.loads(Path(file).read_text())
    except OSError as error:
        raise BadSettings(f"{FILE_VARIABLE}={file!r}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadSettings(f"{file}: not valid TOML: {error}") from error
    # The value is not repeated: it may be a secret under a misspelt name.
    if unknown := sorted(values.keys() - Settings.model_fields.keys()):
        known = ", ".join(sorted(Settings.model_fields))
        raise BadSettings(f"{file}: {unknown[0]}: unknown name; expected one of {known}")
    return values
