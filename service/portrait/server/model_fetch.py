"""Fetch a model that is not in the package: `portrait models fetch max`."""

import os
import tarfile
import tempfile
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from portrait.core.segmenters.catalog import PUBLISHED, Published
from portrait.errors import BadModel, BadOption

TIMEOUT = 30.0
"""Seconds that the registry may say nothing."""


def fetch(name: str, registry: str, folder: Path) -> tuple[Published, bool]:
    """Download a model of the catalogue into `folder`, unless it is there; the model, and whether it was downloaded.

    The file appears whole and checked, or not at all.

    Raises:
        BadOption: there is no such model.
        BadModel: it cannot be had, or is not what it should be; says what to do.
        OSError: the folder cannot be written.
    """
    if name not in PUBLISHED:
        raise BadOption("NAME", f"got {name!r}, expected one of {sorted(PUBLISHED)}")
    model = PUBLISHED[name]
    place = model.place(folder)
    if place.exists():
        model.check(place.read_bytes(), f"{place} (delete it to fetch it anew)")
        return model, False
    address = f"{registry.rstrip('/')}/{model.archive}"
    try:
        data = _download(model, address)
        model.check(data, address)
    except BadModel as error:
        raise BadModel(f"{error}; nothing was stored. Set another registry, or {model.by_hand(folder)}") from error
    _store(data, place)
    return model, True


def _download(model: Published, address: str) -> bytes:
    """The model's bytes out of the archive at `address`, which is read no further than that."""
    try:
        with urlopen(address, timeout=TIMEOUT) as answer, tarfile.open(fileobj=answer, mode="r|gz") as archive:
            for member in archive:
                if member.name == model.member and member.isfile():
                    if member.size != model.size:
                        raise BadModel(f"{address}: got {member.size} bytes of {model.member}, expected {model.size}")
                    file = archive.extractfile(member)
                    assert file is not None, "a regular file has contents"
                    return file.read(model.size)
    except HTTPError as error:
        raise BadModel(f"{address}: got status {error.code} {error.reason}, expected the archive") from error
    except (tarfile.TarError, HTTPException, EOFError, zlib.error) as error:
        raise BadModel(
            f"{address}: got an archive that is damaged or cut short, expected a whole one ({error})"
        ) from error
    except OSError as error:  # the host is unknown, does not answer, or closes the connection
        raise BadModel(f"{address}: cannot be reached: {getattr(error, 'reason', error)}") from error
    raise BadModel(f"{address}: got an archive without {model.member}, expected it there")


def _store(data: bytes, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=place.parent, prefix=f".{place.stem}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(part).chmod(0o644)
        Path(part).replace(place)
    finally:
        Path(part).unlink(missing_ok=True)
