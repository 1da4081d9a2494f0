"""The command line as its users run it: real processes."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import nullcontext
from pathlib import Path

import cv2
import pytest

from portrait.bench import box
from portrait.cli import main
from portrait.client import Client, ClientError, Picture
from portrait.workers.environment import (
    MALLOC,
    SMALL_OBJECTS,
    THREADS,
    default_workers,
    find_jemalloc,
    missing_variables,
    without_cameras,
)
from tests.boxes import FREE, ended, serving
from tests.people import room


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_and_stops_with_status_0(number: signal.Signals) -> None:
    with serving() as (process, announced):
        assert announced["model"] == "portrait"
        with urllib.request.urlopen(announced["page"] + "readyz") as response:
            assert json.load(response) == {"status": "ready"}
        process.send_signal(number)
        status, log = ended(process)
    assert status == 0, log
    assert f"stopping reason={number.name}" in log
    assert "Traceback" not in log


async def test_sigterm_during_a_stream_lets_it_drain_then_cuts_it() -> None:
    with serving("--drain-seconds", "0.5") as (process, announced):
        async with Client(announced["grpc"]) as client, client.open_stream(every_frame=True) as stream:
            await stream.send(Picture.jpeg(cv2.imencode(".jpg", room(64, 64))[1].tobytes()), 1)
            assert await stream.receive() is not None
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ClientError, match="the service stops"):
                await stream.receive()
            with pytest.raises(ClientError):
                await client.segment(Picture.jpeg(b""))
        status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log
    assert "sessions_cut=1" in log
    assert "Traceback" not in log


def test_a_reader_that_wants_no_more_is_no_error() -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for arguments in (("models",), ("bench", "--frames", "1", "--json")):
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "portrait", *arguments]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=buffered, text=True, timeout=300)
        os.close(writing)
        assert done.returncode == 141
        assert "Broken pipe" not in done.stderr, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_does_not_fit_on_the_disk_is_said_in_a_line(unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "portrait", "models"],
            stdout=full, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "portrait: [Errno 28] No space left on device")
    assert "Traceback" not in done.stderr


def test_serve_sets_the_allocator_for_itself() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    clean = {name: value for name, value in clean.items() if name not in THREADS | SMALL_OBJECTS | {"LD_PRELOAD": ""}}
    assert missing_variables(clean) == MALLOC | THREADS
    with_jemalloc = {"LD_PRELOAD": "/x/libjemalloc.so.2"} | THREADS
    assert missing_variables(clean, Path("/x/libjemalloc.so.2")) == with_jemalloc | SMALL_OBJECTS
    assert missing_variables(clean | {"PYTHONMALLOC": "debug"}, Path("/x/libjemalloc.so.2")) == with_jemalloc
    chosen = {"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"}, {"MALLOC_TRIM_THRESHOLD_": "1"}
    assert all(missing_variables(clean | one, Path("/x/libjemalloc.so.2")) == THREADS for one in chosen)
    with serving() as (process, _):
        environ = Path(f"/proc/{process.pid}/environ").read_bytes().decode().split("\0")
        assert any(line.startswith(("MALLOC_MMAP_THRESHOLD_=", "LD_PRELOAD=")) for line in environ)
        assert "OPENBLAS_NUM_THREADS=1" in environ


def test_a_full_collection_does_not_look_at_what_a_service_is_made_of() -> None:
    program = """if True:
        import gc
        import portrait.workers.main as worker
        made = len(gc.get_objects())
        worker.exempt_from_collection()
        print(made, len(gc.get_objects()))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 50_000
    assert after < before / 100


def test_jemalloc_is_found_where_distributions_put_it(tmp_path: Path) -> None:
    assert find_jemalloc(tmp_path) is None
    place = tmp_path / "usr/lib/aarch64-linux-gnu"
    place.mkdir(parents=True)
    (place / "libjemalloc.so.2").touch()
    assert find_jemalloc(tmp_path) == place / "libjemalloc.so.2"


def test_serve_logs_its_effective_settings_once_as_json() -> None:
    with serving("--log-format", "json", PORTRAIT_MAX_SESSIONS="3") as (process, _):
        process.send_signal(signal.SIGTERM)
        _, log = ended(process)
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    (settings,) = [line for line in lines if line["message"] == "settings"]
    assert settings["max_sessions"] == 3


def test_a_command_without_standard_output_is_no_error() -> None:
    done = subprocess.run(
        f"exec {sys.executable} -m portrait models >&-", shell=True, stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_busy_port_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for flag in ("--http-port", "--grpc-port"):
            done = subprocess.run(
                [sys.executable, "-m", "portrait", "serve", *FREE, flag, port],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 1, done.stderr
            assert port in done.stderr.splitlines()[-1]
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--http-port", "70000"], "PORTRAIT_HTTP_PORT='70000': Input should be less than or equal to 65535"),
        (["serve", *FREE, "--host", "0.0.0.0"], "other machines are served without authentication and TLS"),
        (["serve", "--model", "/nowhere.tflite"], "/nowhere.tflite: cannot be read: No such file"),
        (["models", "--runtime", "onnx"], "PORTRAIT_RUNTIME='onnx'"),
    ],
)
def test_bad_settings_end_with_status_2_and_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It acts on the whole process, which here is the tests'.
    monkeypatch.setattr("portrait.cli.serve.logging_to_stderr", lambda *_: nullcontext())
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_models_are_listed_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    default = next(row for row in rows if row["default"])
    assert default["name"] == "portrait"
    assert Path(default["path"]).is_file()


def test_bench_measures_every_size_and_mode(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--json", "--frames", "3"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["size"], row["mode"]) for row in rows} >= {("360p", "mask only"), ("720p", "image")}
    assert all(row["segment"] > 0 and row["p99"] >= row["p50"] > 0 for row in rows)
    assert all((row["compose"] > 0) == (row["mode"] != "mask only") for row in rows)


@pytest.fixture
def short_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes are measured without being warm: what is looked at is that they are."""
    monkeypatch.setattr(box, "WARM_SECONDS", 0.2)


@pytest.mark.usefixtures("short_bench")
def test_bench_loads_a_box_up_to_refusal_and_beyond(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number is the box's own. A tiny share of CPU makes it refuse the second stream.

    Who may call the service that this machine is set up for is no matter of the box that is measured.
    """
    tokens = tmp_path / "tokens"
    tokens.write_text("camera 0123456789abcdef\n")
    for name, value in {"XDG_CACHE_HOME": tmp_path, "PORTRAIT_TOKENS": tokens, "PORTRAIT_TLS": "auto"}.items():
        monkeypatch.setenv(name, str(value))
    kind = ["--load", "grpc,360p,mask only", "--seconds", "0.3"]
    assert main(["bench", "--json", *kind, "--cpu-share", "0.001", "--quality-steps", "0"]) == 0
    levels = json.loads(capsys.readouterr().out)["load"]
    assert [(level["asked"], level["admitted"]) for level in levels] == [(1, 1), (2, 1), (3, 1)]
    assert all(level["cpu"] > 0 and level["streams_per_core"] > 0 for level in levels)
    assert all(level["age_p99"] >= level["age_p50"] > 0 for level in levels)
    assert levels[0]["stages"].keys() == {"decode", "segment", "compose", "encode"}
    assert list(tmp_path.iterdir()) == [tokens], "a benchmark leaves nothing behind"


@pytest.mark.usefixtures("short_bench")
def test_bench_measures_a_stream_of_every_kind(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the smallest size: the others are measured by the same lines, and each kind takes seconds."""
    assert len(box.SIZES) == 3
    monkeypatch.setattr(box, "SIZES", {"360p": box.SIZES["360p"]})
    assert main(["bench", "--json", "--streams", "--seconds", "0.3"]) == 0
    rows = json.loads(capsys.readouterr().out)["streams"]
    kinds = {(row["transport"], row["size"], row["mode"]) for row in rows}
    assert kinds == {(transport, "360p", mode) for transport in box.TRANSPORTS for mode in box.OUTPUT_MODES}
    assert len(rows) == 4
    for row in rows:
        assert row["admitted"] == 1, row
        assert row["frames_per_second"] > 0, row
        assert row["streams_per_core"] > 0, row


@pytest.mark.parametrize("kind", ["grpc", "grpc,8k,mask only", "smoke,360p,composite"])
def test_bench_refuses_a_kind_of_stream_it_does_not_know(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--load", kind])
    assert "expected one of grpc,360p,mask only; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--frames", "0"], "--frames: got '0', expected a whole number of 1 or more"),
        (["--frames", "-10"], "--frames: got '-10', expected a whole number of 1 or more"),
        (["--streams", "--seconds", "0"], "--seconds: got '0', expected seconds above 0"),
        (["--streams", "--seconds", "nan"], "--seconds: got 'nan', expected seconds above 0"),
    ],
)
def test_bench_refuses_what_cannot_be_measured_in_two_lines(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["bench", *arguments])
    usage, error = capsys.readouterr().err.splitlines()
    assert usage == "usage: portrait bench [OPTIONS]"
    assert said in error


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--server-token", "holds no token; expected one word of ASCII"),
        ("--server-ca", "holds no certificate; expected PEM"),
    ],
)
def test_credentials_that_are_none_are_refused_before_anybody_is_asked(
    flag: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"\xff\xfe secret")
    arguments = ["in.jpg", str(tmp_path / "out.jpg"), "--server", "127.0.0.1:1", flag, str(tmp_path / "file")]
    assert main(["process", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "secret" not in error


def test_doctor_finds_a_healthy_box_healthy_and_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *FREE]) == 0
    assert "ok   model" in capsys.readouterr().out
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["doctor", "--json", *FREE, "--http-port", str(taken.getsockname()[1])]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert not checks["http port"]["ok"]
    assert "Address already in use" in checks["http port"]["finding"]
    assert checks["model"]["ok"]


def test_pinned_workers_share_the_cores_out(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    code = (
        "import os, sys; from portrait.workers.environment import pin; "
        "pin(*map(int, sys.argv[1:])); print(*os.sched_getaffinity(0))"
    )

    def pinned(index: int, count: int) -> list[int]:
        done = subprocess.run([sys.executable, "-c", code, str(index), str(count)], capture_output=True, check=True)
        return [int(core) for core in done.stdout.split()]

    count = len(cores)
    assert [core for index in range(count) for core in pinned(index, count)] == cores
    assert pinned(count, count + 1)  # more workers than cores: one core each
    assert pinned(0, 1) == cores


@pytest.mark.parametrize(("budget", "count"), [(0.5, 1), (1.0, 1), (2.0, 1), (3.0, 2), (7.9, 6)])
def test_a_core_is_left_beside_the_workers(budget: float, count: int) -> None:
    assert default_workers(budget) == count


def test_the_addresses_of_cameras_leave_the_command_line() -> None:
    words = ["serve", "--camera", "door=rtsp://a:b@c/1", "--json", "--camera=gate=rtsp://d", "--camera"]
    assert without_cameras(words) == (["serve", "--json", "--camera"], "door=rtsp://a:b@c/1 gate=rtsp://d")
    assert without_cameras(["serve", "--cameras", "file"]) == (["serve", "--cameras", "file"], "")
