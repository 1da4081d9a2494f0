"""Breaks a promise on purpose, to see that its test notices: `python -m tests.faults.mutants [PART OF A NAME ...]`.

Those of privacy, of bounds and of losing nothing. Each mutant changes one place of the package (`mutation`), in the
processes of one run of pytest, and each of its tests must fail.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.mutation import VARIABLE, Change, body, constant, never, without_call, without_raise

ROOT = Path(__file__).parents[2]
LIMIT = 300
"""Seconds for the tests of a mutant; one that waits for ever for what does not come any more has noticed."""


@dataclass(frozen=True)
class Mutant:
    """A promise that is broken, and the tests that must notice."""

    what: str
    change: Change
    tests: tuple[str, ...]
    """Below tests/."""


CORE, IMAGE, HTTP = "portrait.core", "portrait.image", "portrait.transports.http"
GRPC, RTC, CLIENT = "portrait.transports.grpc", "portrait.transports.webrtc", "portrait_client"
SLOT = "portrait.sessions.newest_slot:NewestSlot"

PRIVACY = [
    Mutant(
        "a frame whose segmentation fails shows everything",
        body(f"{IMAGE}.frame:Mask.empty", "return cls(np.full((height, width), 255, np.uint8))"),
        (
            "test_pipeline.py::test_any_exception_of_a_runtime_fails_closed",
            "test_webrtc.py::test_a_failing_network_shows_nothing_of_the_camera",
        ),
    ),
    Mutant(
        "values that are no probability become a mask",
        never(f"{CORE}.segmenters.tflite:TFLiteSegmenter._take", "probability"),
        ("test_segmenters.py::test_a_network_that_gives_nan_fails_instead_of_a_mask",),
    ),
    Mutant(
        "the blur is weak",
        constant(f"{CORE}.compositors.modes:SHORT_SIDE", "480"),
        ("test_watermark.py::test_what_is_composed_is_clean",),
    ),
    Mutant(
        "a cutout hides by its alpha alone",
        body(f"{IMAGE}.convert:hidden", "return frame"),
        ("test_compositors.py::test_cutout_has_no_camera_under_its_transparent_pixels",),
    ),
    Mutant(
        "a mask outlives the person it was made from",
        body(f"{CORE}.pipeline:LastFrame.is_unrelated", "return False"),
        (
            "test_pipeline.py::test_the_prior_is_forgotten_when_it_says_nothing",
            "test_pipeline.py::test_the_prior_is_forgotten_when_its_person_is_no_longer_there",
        ),
    ),
    Mutant(
        "a mask is carried over a reset",
        body(f"{CORE}.mask_reuse:MaskReuse.forget", "pass"),
        ("test_quality.py::test_a_mask_is_never_carried_over_a_gap_another_size_or_a_reset",),
    ),
    Mutant(
        "whatever moves counts as still",
        body(f"{CORE}.mask_reuse:_is_still", "return True"),
        ("test_quality.py::test_a_still_picture_takes_its_mask_again_and_a_moving_one_does_not",),
    ),
    Mutant(
        "everyone is let in over HTTP and gRPC",
        body("portrait.security:Security.check", "return None"),
        (
            "test_security.py::test_http_lets_known_tokens_pass_only",
            "test_security.py::test_grpc_lets_known_tokens_pass_only",
        ),
    ),
    Mutant(
        "what a credential has opened outlives it",
        without_call("portrait.security:Security.holding", "end"),
        ("test_expiry.py::test_a_stream_ends_with_its_token",),
    ),
    Mutant(
        "other machines are served whatever is configured",
        without_raise("portrait.security:_check_exposure"),
        ("test_security.py::test_other_machines_are_served_securely_or_on_request_only",),
    ),
    Mutant(
        "an address that a client names is a background",
        without_raise(f"{IMAGE}.backgrounds:Backgrounds.path"),
        ("test_grpc_refusals.py::test_bad_options_are_refused_with_details",),
    ),
]

BOUNDS = [
    Mutant(
        "any number of connections is kept",
        body(f"{HTTP}.connection_limits:ConnectionLimiter.__len__", "return 0"),
        ("test_bounds.py::test_a_server_full_of_served_connections_accepts_no_more",),
    ),
    Mutant(
        "a head that never ends is waited for",
        body(f"{HTTP}.connection_limits:ConnectionLimiter.close_overdue", "await asyncio.Event().wait()"),
        ("test_bounds.py::test_a_head_that_never_ends_is_cut",),
    ),
    Mutant(
        "a body that never ends is waited for",
        body(f"{HTTP}.connection_limits:_stop_reading", "pass"),
        ("test_bounds.py::test_a_body_that_never_ends_is_cut",),
    ),
    Mutant(
        "any number of large bodies is read at once",
        body(f"{HTTP}.connection_limits:ConnectionLimiter._large_body", "yield"),
        ("test_bounds.py::test_a_bounded_number_of_large_bodies_is_read_at_once",),
    ),
    Mutant(
        "any number of parts of a form is read",
        without_raise(f"{HTTP}.stills:_read_parts"),
        ("test_bounds.py::test_parts_without_end_are_refused_at_the_first_one_too_many",),
    ),
    Mutant(
        "pictures in memory are not counted",
        body("portrait.admission.pixel_budget:PixelBudget._wait", "self._taken += pixels"),
        (
            "test_pixel_budget.py::test_a_picture_over_the_budget_is_refused_in_time",
            "test_pixel_budget.py::test_pictures_wait_for_pixels_in_the_order_in_which_they_come",
        ),
    ),
    Mutant(
        "a picture may have any size",
        without_raise(f"{IMAGE}.frame:check_size"),
        ("test_pictures.py::test_a_huge_header_is_refused_before_decoding",),
    ),
    Mutant(
        "a video may have pictures of any size",
        without_raise(f"{RTC}.aiortc_patches.video_codecs:_check_pixels"),
        ("test_hostile_pictures.py::test_a_vp8_key_frame_that_claims_a_huge_size_costs_nothing",),
    ),
    Mutant(
        "a background clip may have any length",
        without_raise(f"{IMAGE}.clip:_check_length"),
        ("test_backgrounds.py::test_what_is_no_film_is_refused_by_name[too long]",),
    ),
    Mutant(
        "a message is parsed however many members it has",
        without_raise(f"{GRPC}.validation:check_members"),
        ("test_hostile_bombs.py::test_a_message_of_millions_of_members_is_not_parsed[inputs]",),
    ),
    Mutant(
        "an offer may have any number of lines",
        without_raise(f"{RTC}.offer_limits:check_offer"),
        ("test_hostile_offers.py::test_an_offer_of_more_than_any_clients_is_refused",),
    ),
    Mutant(
        "candidates trickle without end",
        never(f"{RTC}.connection:Connection.add_candidates", "MOST_CANDIDATES"),
        ("test_hostile_offers.py::test_candidates_that_trickle_without_end_are_refused",),
    ),
    Mutant(
        "an address asks as often as it likes",
        without_raise(f"{RTC}.offer_limits:Rate.take"),
        ("test_signalling_access.py::test_an_address_that_asks_too_often_is_429_with_retry_after",),
    ),
    Mutant(
        "what comes on data channels is kept",
        body(f"{RTC}.aiortc_patches.data_channels:read_nothing", "pass"),
        ("test_hostile_channels.py::test_so_many_channels_are_opened_and_no_more",),
    ),
    Mutant(
        "any number of sessions is opened",
        body("portrait.sessions.registry:Sessions._refusal", "return None"),
        ("test_session.py::test_one_session_more_than_the_limit_is_refused_before_anything_is_made",),
    ),
    Mutant(
        "a stream without frames is kept",
        body(f"{GRPC}.stream:IdleTimeout.begin", "pass"),
        ("test_grpc_ends.py::test_a_stream_that_never_sends_a_frame_ends",),
    ),
    Mutant(
        "a peer that vanishes is kept",
        body(f"{RTC}.connection:Connection.watch", "await asyncio.Event().wait()"),
        ("test_vanished_clients.py::test_a_client_that_vanishes_gives_its_place_back",),
    ),
]

NO_LOSS = [
    Mutant(
        "frames queue up",
        body(f"{SLOT}.put", "self._item.insert(0, item)\nself._ready.set()\nreturn True"),
        (
            "test_newest_slot.py::test_newest_wins_and_losses_are_counted",
            "test_grpc_delivery.py::test_drops_come_with_their_reason",
        ),
    ),
    Mutant(
        "a sender that may lose nothing is not held up",
        body(f"{SLOT}.wait_empty", "return None"),
        ("test_grpc_delivery.py::test_every_frame_slows_the_sender_down_and_loses_nothing",),
    ),
    Mutant(
        "what was on its way to a lost server is not sent again",
        never(f"{CLIENT}.failover:Failover._send", "_every"),
        ("test_client.py::test_a_lost_server_costs_no_frame_of_an_exact_stream",),
    ),
    Mutant(
        "a stream that goes on elsewhere begins anew",
        body(f"{CORE}.pipeline:Pipeline.resume", "pass"),
        ("test_grpc_priors.py::test_a_stream_that_goes_on_elsewhere_makes_no_jump",),
    ),
]

MUTANTS = [*PRIVACY, *BOUNDS, *NO_LOSS]


def run(index: int) -> tuple[set[str], str]:
    """The tests of a mutant that did not notice, and what pytest said."""
    mutant = MUTANTS[index]
    folders = (ROOT / "tests" / "faults" / "mutating", ROOT / "service", ROOT / "clients" / "python", ROOT)
    environ = os.environ | {VARIABLE: str(index), "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    command += [f"tests/{name}" for name in mutant.tests]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return set(), f"still waiting after {LIMIT} s"
    said = done.stdout + done.stderr
    failed = re.findall(r"^(?:FAILED|ERROR) tests/(\S+?)(?:\[.*)?(?: - .*)?$", said, re.MULTILINE)
    return {name for name in mutant.tests if name.partition("[")[0] not in failed}, said


def main() -> int:
    """The command line; 1 when a mutant was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="of names, of places or of tests; default: all mutants")
    parts, missed = parser.parse_args().parts, 0
    for index, mutant in enumerate(MUTANTS):
        text = f"{mutant.what} {mutant.change.place} {mutant.tests}"
        if parts and not any(part in text for part in parts):
            continue
        began = time.monotonic()
        silent, said = run(index)
        missed += bool(silent)
        verdict = f"MISSED by {', '.join(sorted(silent))}" if silent else "noticed"
        print(f"{verdict}: {mutant.what} ({mutant.change.place}, {time.monotonic() - began:.0f} s)", flush=True)
        if silent:
            print(said[-3000:])
    print(f"{missed} missed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
