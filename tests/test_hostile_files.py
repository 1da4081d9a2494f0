"""Files and settings that nobody meant to write: refused by name, and a network that crashes takes nobody with it."""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from portrait.core.segmenters import EMBEDDED
from portrait.errors import BadModel, BadSettings, Unauthenticated
from portrait.security import open_security
from portrait.server.model_check import check_model
from portrait.settings import PREFIX, Settings, load_settings
from tests.mutations import SEED, mutated_bytes

NAMES = sorted(PREFIX + name.upper() for name in Settings.model_fields)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["", "0", "-1", "nan", "inf", "1e400", "9" * 5000, "true", "/", "/dev/null", "/proc/self/mem", "0-0", "5-1", "[]"]
)
ALWAYS = hypothesis.settings(max_examples=300, deadline=None, database=None, derandomize=True)


@ALWAYS
@hypothesis.given(st.dictionaries(st.sampled_from([*NAMES, "PORTRAIT_X"]), TEXTS, max_size=4))
def test_no_environment_does_anything_but_be_taken_or_refused(environ: dict[str, str]) -> None:
    refused = None
    try:
        settings = load_settings({}, environ)
        assert settings.media_port_range.stop <= 65536
        assert list(settings.advertised) == [part.strip() for part in settings.advertised]
    except BadSettings as error:
        refused = str(error)
    assert refused is None or PREFIX in refused


VALUES = st.recursive(
    TEXTS | st.integers() | st.booleans() | st.floats(), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


@ALWAYS
@hypothesis.given(st.dictionaries(st.sampled_from([name.removeprefix(PREFIX).lower() for name in NAMES]), VALUES))
def test_no_settings_file_does_anything_but_be_taken_or_refused(values: dict[str, object]) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"portrait-test-{os.getpid()}.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
    try:
        with contextlib.suppress(BadSettings):
            load_settings({"config": str(path)}, {})
    finally:
        path.unlink()


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a = " + b"[" * 100_000, b"=", b"a = 1\na = 2", b"\0"])
def test_no_bytes_of_a_settings_file_do_anything_but_be_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "portrait.toml"
    path.write_bytes(data)
    with pytest.raises(BadSettings):
        load_settings({"config": str(path)}, {})


def test_a_token_is_compared_with_every_known_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests by hmac.compare_digest, all of them each time: how near a guess is takes no longer to tell."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    (tmp_path / "tokens").write_text("".join(f"n{i} {i}123456789abcdef\n" for i in range(5)))
    security = open_security(Settings(tokens=tmp_path / "tokens"))
    monkeypatch.setattr("portrait.security.bearers.hmac.compare_digest", compare)
    for token in ("0123456789abcdef", "4123456789abcdef", "0123456789abcdeX", "short"):
        compared.clear()
        with contextlib.suppress(Unauthenticated):
            security.check(f"Bearer {token}", has_certificate=False)
        assert len(compared) == 5
        assert {len(side) for pair in compared for side in pair} == {32}


TRY = """
import random, sys
from pathlib import Path
from portrait.errors import PortraitError
from portrait.core.segmenters import load_models, warm
from tests.mutations import mutated_bytes
seed, path = sys.argv[1], Path(sys.argv[2])
path.write_bytes(mutated_bytes(Path(sys.argv[3]).read_bytes(), random.Random(seed)))
try:
    warm(load_models(str(path)))
except PortraitError as error:
    assert str(error), "says nothing"
    sys.exit(2)
"""


def test_a_damaged_network_is_taken_or_refused_or_ends_its_own_process(tmp_path: Path) -> None:
    """The runtime does not promise to survive any file: whatever it does, `check_model` makes BadModel of it."""
    told, own = Counter[str](), str(tmp_path / "own.tflite")
    for number in range(6):
        done = subprocess.run(
            [sys.executable, "-c", TRY, f"{SEED}:{number}", own, str(EMBEDDED / "portrait.tflite")],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        told[{0: "taken", 2: "refused"}.get(done.returncode, f"ended with {done.returncode}")] += 1
        assert done.returncode in (0, 2) or done.returncode < 0, done.stderr
        if done.returncode:
            with pytest.raises(BadModel):
                asyncio.run(check_model(Settings(model=own)))
    print(dict(told))


async def test_a_network_that_kills_its_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr("portrait.server.model_check.sys.executable", str(crashing))
    with pytest.raises(BadModel, match=r"own.tflite: the process that tried it was killed by SIGSEGV"):
        await check_model(Settings(model="own.tflite"))


async def test_a_network_that_never_comes_to_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setattr("portrait.server.model_check.sys.executable", str(hanging))
    monkeypatch.setattr("portrait.server.model_check.CHECK_SECONDS", 0.5)
    with pytest.raises(BadModel, match=r"not loaded and run once within 0.5 s"):
        await check_model(Settings(model="own.tflite"))


def test_the_same_seed_is_the_same_trouble() -> None:
    assert len({mutated_bytes(b"network", random.Random(f"{SEED}:1")) for _ in range(3)}) == 1
