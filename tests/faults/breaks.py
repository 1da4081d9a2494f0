"""Breaks the service on purpose, one line at a time, to see that a test catches it: `python -m tests.faults.breaks`.

A test that no break makes fail proves nothing. Each break is made in a copy of the repository.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copy2

ROOT = Path(__file__).parents[2]
LIMIT = 150
"""Seconds for one test; who waits for ever for what does not come any more has caught it."""


@dataclass(frozen=True)
class Break:
    """One line made wrong."""

    what: str
    file: str
    """Below service/portrait."""
    right: str
    wrong: str
    caught_by: tuple[str, ...]
    """Below tests."""


CLOSED = "faults/test_fail_closed.py::test_not_one_frame_shows_the_room_whatever_the_network_does"
KILLED = "faults/test_fail_closed.py::test_not_one_frame_shows_the_room_when_workers_are_killed"
HANGS = "faults/test_processes.py::test_an_interpreter_that_hangs_costs_its_session_only_and_its_place_is_free"
SIGTERM = "faults/test_processes.py::test_sigterm_under_load_lets_streams_go_on_and_then_ends_all_of_them_in_order"
FULL = "faults/test_machine.py::test_a_box_starts_where_nothing_can_be_written"
FILLS = "faults/test_machine.py::test_a_box_works_on_when_its_disk_is_full"
CLOCK = "faults/test_machine.py::test_a_clock_that_jumps_is_not_noticed_by_any_stream"
PEERS = "faults/test_peers.py::test_"
CUTS = "network/test_cuts.py::test_"

BREAKS = (
    Break(
        "a frame that fails shows everything", "pipeline.py",
        "raised, Mask.empty(self._mask_width, self._mask_height)",
        "raised, Mask(np.full((self._mask_height, self._mask_width), 255, np.uint8))",
        (CLOSED, "test_session.py::test_any_exception_of_a_runtime_fails_closed",
         "test_webrtc.py::test_a_failing_network_shows_nothing_of_the_camera"),
    ),
    Break(
        "the first frame of a stream shows everything", "pipeline.py",
        "            mask = follow_edges(prior, guide)\n",
        "            mask = follow_edges(prior, guide) if self._seen else Mask(np.full_like(prior.values, 255))\n",
        (CLOSED, KILLED),
    ),
    Break(
        "NaN becomes a mask", "segmenters/tflite.py",
        "if not cv2.checkRange(plane, quiet=True, minVal=-1e-3, maxVal=1.001)[0]:", "if plane is None:",
        ("test_segmenters.py::test_a_network_that_gives_nan_fails_instead_of_a_mask",),
    ),
    Break(
        "a framed picture has the whole frame's mask", "framing.py",
        "Mask(np.asarray(values, np.uint8))", "mask",
        ("test_framing.py::test_nothing_of_the_room_is_in_a_framed_picture",),
    ),
    Break(
        "a wide feather lets the room through", "compositors/options.py",
        "most = min(self.threshold, 1 - self.threshold)", "most = 1.0",
        ("test_edge_colors.py::test_an_edge_that_cannot_be_is_refused",),
    ),
    Break(
        "any container is taken for a film", "films.py",
        "format=FORMATS[path.suffix]", "format=None",
        ("test_backgrounds.py::test_what_is_no_film_is_refused_by_name",),
    ),
    Break("the blur is weak", "compositors/blur.py", "SHORT_SIDE = 72", "SHORT_SIDE = 480", (CLOSED,)),
    Break(
        "a cutout has colours below its alpha", "pictures.py", "        pixels[frame.alpha == 0] = 0\n", "", (CLOSED,),
    ),
    Break(
        "a thread that hangs is used again", "ownthread.py", "        self._hangs = True\n", "",
        ("test_session.py::test_a_network_that_hangs_ends_its_session_and_frees_its_place",),
    ),
    Break(
        "a session that hangs is not counted", "session.py",
        "        self._counting.hung(self.transport)\n", "", (HANGS,),
    ),
    Break("the process waits for a thread that hangs", "ownthread.py", "daemon=True", "daemon=False", (HANGS,)),
    Break(
        "a network file that does not open is waited for", "session.py",
        "await self._thread.run(self._open, prior)", "self._open(prior)",
        ("test_session.py::test_a_network_that_hangs_while_it_is_opened_frees_its_place",),
    ),
    Break(
        "connections are cut before clients know why", "app.py",
        "await sessions.wait_closed(LAST_WORD_SECONDS)", "await sessions.wait_closed(0.0)",
        ("faults/test_processes.py::test_a_frame_under_way_at_the_end_does_not_cost_its_client_the_reason",),
    ),
    Break(
        "streams are not told that the service stops", "sessions.py", "            session.leave(seconds)\n",
        "            pass\n", (SIGTERM,),
    ),
    Break(
        "the client takes grpc.aio's word for the server's", "client/call.py",
        "        call.add_done_callback(self._note)\n", "",
        ("test_grpc_ends.py::test_a_sender_that_does_not_stop_is_told_why_its_stream_ended",),
    ),
    Break(
        "the board's memory is promised, not taken", "board.py",
        "os.posix_fallocate(self._file, 0, self.places * ROW_BYTES)",
        "os.truncate(self._file, self.places * ROW_BYTES)", (FULL,),
    ),
    Break(
        "a calibration must be kept", "calibration.py",
        "with suppress(OSError):  # a read-only", "with suppress(KeyError):  # a read-only", (FULL,),
    ),
    Break(
        "a worker that comes back needs the disk", "worker.py",
        "    board = Board(",
        "    (Path(orders.folder) / str(os.getpid())).write_bytes(bytes(9999))\n    board = Board(", (FILLS,),
    ),
    Break(
        "a log that cannot be written is an error", "logs.py",
        "handler = logging.StreamHandler(sys.stderr)\n",
        "handler = logging.StreamHandler(sys.stderr)\n    handler.handleError = None\n",
        ("faults/test_machine.py::test_a_log_that_cannot_be_written_costs_nobody_anything",),
    ),
    Break(
        "an authority that cannot be kept is a traceback", "security/authority.py",
        "        except OSError as error:\n            raise BadSettings(\n",
        "        except KeyError as error:\n            raise BadSettings(\n",
        ("faults/test_machine.py::test_a_box_that_cannot_keep_its_authority_says_so_in_a_line",),
    ),
    Break(
        "aiortc measures by the time of day", "transports/webrtc/realtime.py",
        "STEADY = SimpleNamespace(time=time.monotonic)", "STEADY = time",
        (CLOCK, "test_webrtc_realtime.py::test_a_clock_that_jumps_is_no_jitter"),
    ),
    Break(
        "WebRTC's frames come by the time of day", "transports/webrtc/camera.py",
        "self._slot.put((picture, time.monotonic()))", "self._slot.put((picture, time.time()))", (CLOCK,),
    ),
    Break(
        "a second's silence is the end", "transports/webrtc/connection.py",
        "SILENT_SECONDS = 5.0", "SILENT_SECONDS = 0.5", (CUTS + "a_cut_of_a_second_is_a_picture_that_stands_still",),
    ),
    Break(
        "a lost packet is waited for without end", "transports/webrtc/lost.py",
        "GIVE_UP_SECONDS = 1.0", "GIVE_UP_SECONDS = 1e9",
        ("test_webrtc_realtime.py::test_what_never_comes_holds_pictures_up_for_a_second_only",
         "test_webrtc_realtime.py::test_what_has_been_asked_for_long_enough_is_given_up",
         CUTS + "after_a_cut_of_five_seconds_pictures_are_back_within_two"),
    ),
    Break(
        "a silent gRPC client keeps its place", "transports/grpc/stream.py",
        "deadline.reschedule(asyncio.get_running_loop().time() + self._idle_seconds)", "deadline.reschedule(None)",
        (CUTS + "a_long_cut_frees_the_places_and_everybody_comes_back",),
    ),
    Break(
        "a connection that does not close is waited for", "transports/webrtc/connection.py",
        "asyncio.timeout(CLOSE_SECONDS)", "asyncio.timeout(None)",
        ("test_vanishing.py::test_a_connection_that_does_not_close_costs_no_place",),
    ),
    Break(
        "a peer without RTP is waited for", "transports/webrtc/camera.py",
        "asyncio.timeout(self._idle_seconds)", "asyncio.timeout(None)",
        (PEERS + "a_peer_that_connects_and_sends_no_rtp_is_ended_when_it_is_idle",),
    ),
    Break(
        "a picture that cannot be decoded ends its decoder", "transports/webrtc/realtime.py",
        "    rtcrtpreceiver.TimestampMapper = KeptTime",
        "    rtcrtpreceiver.logger.warning = None\n    rtcrtpreceiver.TimestampMapper = KeptTime",
        (PEERS + "garbage_in_encrypted_rtp_is_thrown_away_and_pictures_are_shown_again",),
    ),
    Break(
        "what cannot be decrypted ends the connection", "transports/webrtc/realtime.py",
        "    rtcrtpreceiver.TimestampMapper = KeptTime",
        "    rtcdtlstransport.pylibsrtp = SimpleNamespace(Error=None)\n    rtcrtpreceiver.TimestampMapper = KeptTime",
        (PEERS + "garbage_on_the_media_port_is_thrown_away",),
    ),
    Break(
        "any size is worked on", "transports/webrtc/codec.py",
        "frame_from_av(picture, self._max_pixels, arrived)", "frame_from_av(picture, 10**9, arrived)",
        (PEERS + "a_4k_camera_is_refused_frame_by_frame_and_its_neighbour_goes_on",),
    ),
    Break(
        "slow cameras are idle", "transports/webrtc/__init__.py",
        "self._max_frame_pixels, self._idle_seconds = max_frame_pixels, idle_seconds",
        "self._max_frame_pixels, self._idle_seconds = max_frame_pixels, 0.5",
        (PEERS + "one_frame_per_second_is_a_stream_like_any_other",),
    ),
    Break(
        "frames that are too many are not counted", "latest.py", "self.dropped += lost", "self.dropped += 0",
        (PEERS + "240_frames_per_second_wait_for_nobody",),
    ),
    Break(
        "a thread stays when its session ends", "ownthread.py", "            self._calls.put(None)\n", "",
        (PEERS + "none_of_them_leaves_anything_behind",),
    ),
    Break(
        "an exact stream loses its prior in a gap", "session.py",
        "gap = inf if self._terms.delivery is Delivery.EXACT else GAP", "gap = 0.0",
        tuple(f"test_determinism.py::test_{name}" for name in (
            "a_stream_says_what_the_core_says", "seven_neighbours_under_load_change_no_bit",
            "another_process_says_the_same",
        )),
    ),
)  # fmt: skip


@contextmanager
def broken(each: Break) -> Iterator[Path]:
    """A copy of the repository with the break in it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                copy2(ROOT / name, copy / name)
        place = copy / "service" / "portrait" / each.file
        text = place.read_text()
        assert text.count(each.right) == 1, f"{each.file} has {each.right!r} {text.count(each.right)} times"
        place.write_text(text.replace(each.right, each.wrong))
        yield copy


def catches(copy: Path, test: str) -> bool:
    """Whether a test fails on the copy."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{test}"],
            cwd=copy, env={**os.environ, "PYTHONPATH": f"{copy / 'service'}{os.pathsep}{copy}"},
            capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode == 1


def main() -> int:
    """The command line; 1 when a break was not caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="breaks of which this is a part")
    only = parser.parse_args().only
    missed = 0
    for each in BREAKS:
        if only in f"{each.file} {each.what}":
            with broken(each) as copy:
                for test in each.caught_by:
                    caught = catches(copy, test)
                    missed += not caught
                    print(f"{'caught' if caught else 'MISSED'}  {each.what}: {each.file}  {test}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
