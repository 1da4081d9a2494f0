"""Settings: what an operator may decide, by flags, environment, file and these defaults, in that order."""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

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
"""Names the settings file, a TOML table of the names below in lower case."""

FILE_VALUES, ENVIRONMENT_VALUES = "values of the settings file", "values of the environment"
"""How they travel to `settings_customise_sources`, which the library calls; no setting can have these names."""

OURS = "Value error, "
"""What the library puts before a reason that is a validator's of this file."""

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,]+")


def _check_ports(text: str) -> str:
    first, dash, last = text.partition("-")
    if not (dash and first.isdigit() and last.isdigit() and int(first) <= int(last) <= 65535):
        raise ValueError("expected FIRST-LAST, two ports of 0 to 65535 in order")
    return text


def _check_addresses(text: str) -> str:
    for address in _list(text):
        ipaddress.ip_address(address)
    return text


def _check_names(text: str) -> str:
    for name in _list(text):
        if not name.isascii():
            raise ValueError(f"{name!r} came; expected names as certificates hold them, xn--... for other letters")
    return text


def _check_origins(text: str) -> str:
    for origin in _list(text):
        if origin != "*" and ORIGIN.fullmatch(origin) is None:
            raise ValueError(f"{origin!r} came; expected SCHEME://HOST or SCHEME://HOST:PORT, or *")
    return text


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _look_at(path: Any, look: ValidatorFunctionWrapHandler) -> Any:
    try:
        return look(path)
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ValueError(f"cannot be looked at: {error.strerror}") from error


File = Annotated[FilePath, WrapValidator(_look_at)]
Folder = Annotated[DirectoryPath, WrapValidator(_look_at)]
PortRange = Annotated[str, AfterValidator(_check_ports)]
Addresses = Annotated[str, AfterValidator(_check_addresses)]
Names = Annotated[str, AfterValidator(_check_names)]
Origins = Annotated[str, AfterValidator(_check_origins)]


class Settings(BaseSettings):
    """One value per setting; `PORTRAIT_HTTP_PORT` is `http_port`. Which ones SIGHUP changes is said in running.py."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    http_port: int = Field(8080, ge=0, le=65535, description="TCP port of page, WebRTC signalling, stills, metrics.")
    grpc_port: int = Field(50051, ge=0, le=65535, description="TCP port of gRPC.")
    media_ports: PortRange = Field("50000-50199", description="UDP ports of WebRTC media, FIRST-LAST; 0-0: any.")
    advertised_addresses: Addresses = Field("", description="Further IP addresses media is reached by, with commas.")
    ice_urls: str = Field("", description="Your STUN and TURN servers clients are told of: stun:, turn:, with commas.")
    turn_secret: SecretStr = Field(SecretStr(""), description="The secret TURN shares (coturn's static-auth-secret).")
    turn_seconds: float = Field(3600.0, ge=60, le=86_400, description="How long TURN credentials can be used.")
    origins: Origins = Field("", description="Origins of other pages that may use the service, with commas; *: all.")
    workers: int = Field(0, ge=0, le=64, description="Worker processes; 0: one per core less one, at least one.")
    pin_workers: bool = Field(False, description="Keep each worker to its own share of the cores.")
    model: str = Field("portrait", min_length=1, description="Default model: an embedded name or the path of a file.")
    runtime: Literal["auto", "litert", "tflite-runtime"] = Field("auto", description="TFLite interpreter.")
    backgrounds: Folder | None = Field(None, description="Folder of further background pictures.")
    max_sessions: int = Field(64, ge=1, le=10_000, description="Sessions open at once; more are refused.")
    cpu_share: float = Field(0.8, ge=0, le=1, description="Share of the CPU streams are admitted to; 0: not counted.")
    quality_steps: int = Field(4, ge=0, le=4, description="Steps quality may go down before streams are refused.")
    max_viewers: int = Field(32, ge=0, le=10_000, description="WHEP viewers connected at once; more are refused.")
    max_frame_pixels: int = Field(1920 * 1088, ge=256, le=2**26, description="Pixels of a stream's frame, at most.")
    max_still_pixels: int = Field(25_000_000, ge=256, le=2**28, description="Pixels of a still picture, at most.")
    max_still_bytes: int = Field(32 * 2**20, ge=1024, le=2**30, description="Bytes of an HTTP request, at most.")
    idle_seconds: float = Field(15.0, gt=0, le=3600, description="A stream without a frame for so long ends.")
    hang_seconds: float = Field(20.0, gt=0, le=3600, description="A frame that takes so long ends its session.")
    drain_seconds: float = Field(5.0, ge=0, le=3600, description="How long open sessions may go on after SIGTERM.")
    tls: Literal["files", "auto"] = Field("files", description="TLS by the files below, or by an authority of its own.")
    tls_names: Names = Field("", description="Further names and addresses of the box for that authority, with commas.")
    data: Path | None = Field(None, description="Folder of what the service keeps: its authority.")
    tls_certificate: File | None = Field(None, description="PEM file of the server's certificate and its chain.")
    tls_key: File | None = Field(None, description="PEM file of its key, not encrypted.")
    tls_client_ca: File | None = Field(None, description="PEM file of the authority whose clients may call.")
    tokens: File | None = Field(None, description="File of bearer tokens: a name and a token on each line.")
    jwt_keys: File | None = Field(None, description="File of keys for signed tokens: a JWK set, or PEM.")
    jwt_audience: str | None = Field(None, min_length=1, description="What a signed token's aud must hold.")
    jwt_issuer: str | None = Field(None, min_length=1, description="What a signed token's iss must be.")
    insecure: bool = Field(False, description="Serve other machines without authentication or without TLS.")
    tracing: bool = Field(False, description="Send one OpenTelemetry span per session, as OTEL_* says.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severity logged.")
    log_format: Literal["text", "json"] = Field("text", description="One line per event, for people or programs.")

    @property
    def media_port_range(self) -> range:
        """`media_ports` as a range, empty for any port."""
        first, last = map(int, self.media_ports.split("-"))
        return range(first, last + 1) if last else range(0)

    @property
    def advertised(self) -> tuple[str, ...]:
        """`advertised_addresses`, one by one."""
        return _list(self.advertised_addresses)

    @property
    def data_folder(self) -> Path:
        """`data`, or where the XDG base directory specification puts what a user's program keeps."""
        return self.data or Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "portrait"

    @property
    def encrypted(self) -> bool:
        """Whether it is served over TLS."""
        return self.tls == "auto" or self.tls_certificate is not None

    @property
    def own_names(self) -> tuple[str, ...]:
        """What the box is called besides what it finds out by itself."""
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
        """Flags, environment, file."""
        assert isinstance(init_settings, InitSettingsSource)
        file, environ = (init_settings.init_kwargs.pop(name, None) for name in (FILE_VALUES, ENVIRONMENT_VALUES))
        given = env_settings if environ is None else InitSettingsSource(settings_cls, environ)
        return init_settings, given, InitSettingsSource(settings_cls, file or {})


def load_settings(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in force.

    Raises:
        BadSettings: an unknown name, or a value out of its range; says name, value and range.
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
    """Settings of these values, by name; the others are the environment's or the defaults.

    Raises:
        BadSettings: a value out of its range; says name, value and range.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise BadSettings("; ".join(map(_say, error.errors()))) from error


def _say(problem: ErrorDetails) -> str:
    """What is wrong with a setting: its name, what came unless that is secret, what is expected."""
    name = ".".join(map(str, problem["loc"]))
    field = Settings.model_fields.get(name)
    came = "a secret" if field is not None and field.annotation is SecretStr else repr(problem.get("input"))
    return f"{PREFIX}{name.upper()}={came}: {problem['msg'].removeprefix(OURS)}"


def _read_file(file: str) -> dict[str, Any]:
    try:
        values = tomllib.loads(Path(file).read_text())
    except OSError as error:
        raise BadSettings(f"{FILE_VARIABLE}={file!r}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadSettings(f"{file}: no TOML: {error}") from error
    # Without the value: that of a secret whose name is misspelt is a secret.
    if unknown := sorted(values.keys() - Settings.model_fields.keys()):
        known = ", ".join(sorted(Settings.model_fields))
        raise BadSettings(f"{file}: {unknown[0]}: unknown name; expected one of {known}")
    return values
