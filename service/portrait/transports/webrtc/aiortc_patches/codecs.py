"""Which of a client's codecs are taken."""

import re
from typing import Any

from aiortc.codecs import is_rtx
from aiortc.rtcpeerconnection import find_common_codecs as stock_find_common_codecs
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters

FEEDBACK = (RTCRtcpFeedback("nack"), RTCRtcpFeedback("nack", "pli"), RTCRtcpFeedback("goog-remb"))

PROFILES = {0x42, 0x4D, 0x58, 0x64, 0x6E, 0x7A, 0xF4}
"""The profile_idc of H.264 that FFmpeg decodes: Baseline, Main, Extended, High, High 10, High 4:2:2, High 4:4:4."""

H264_PARAMETERS = ("level-asymmetry-allowed", "packetization-mode", "profile-level-id")


def find_common_codecs(
    local_codecs: list[RTCRtpCodecParameters], remote_codecs: list[RTCRtpCodecParameters]
) -> list[RTCRtpCodecParameters]:
    """The codecs of `remote_codecs` that are taken. Replaces aiortc's function of that name.

    As aiortc, which knows VP8 and H.264 in constrained baseline or baseline, packetization mode 1. Where there is none
    of these, H.264 in any profile and either packetization mode, under the parameters that were offered: FFmpeg decodes
    them all, and the service sends constrained baseline, which decoders of the other profiles take as well.
    """
    common = stock_find_common_codecs(local_codecs, remote_codecs)
    knows_h264 = any(codec.mimeType.lower() == "video/h264" for codec in local_codecs)
    if not knows_h264 or any(not is_rtx(codec) for codec in common):
        return common
    taken = {codec.payloadType: _as_offered(codec) for codec in remote_codecs if _is_decodable_h264(codec)}
    for codec in remote_codecs:
        apt = codec.parameters.get("apt")
        if is_rtx(codec) and isinstance(apt, int) and apt in taken:
            taken[codec.payloadType] = codec
    return list(taken.values())


def _is_decodable_h264(codec: RTCRtpCodecParameters) -> bool:
    if codec.mimeType.lower() != "video/h264" or codec.clockRate != 90_000:
        return False
    if codec.parameters.get("packetization-mode", "0") not in ("0", "1"):
        return False
    # Without it the profile is baseline (RFC 6184 section 8.1).
    profile = str(codec.parameters.get("profile-level-id", "42000a"))
    return re.fullmatch("[0-9A-Fa-f]{6}", profile) is not None and int(profile[:2], 16) in PROFILES


def _as_offered(codec: RTCRtpCodecParameters) -> RTCRtpCodecParameters:
    parameters: dict[str, Any] = {name: codec.parameters[name] for name in H264_PARAMETERS if name in codec.parameters}
    return RTCRtpCodecParameters(
        mimeType="video/H264",
        clockRate=codec.clockRate,
        payloadType=codec.payloadType,
        rtcpFeedback=[each for each in FEEDBACK if each in codec.rtcpFeedback],
        parameters=parameters,
    )
