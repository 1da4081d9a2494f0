"""Whether a picture can be decoded without those before it."""

VP8_START_CODE = b"\x9d\x01\x2a"

H264_START_CODE = b"\x00\x00\x01"

IDR, SPS = 5, 7
"""NAL unit types of H.264 with which a keyframe begins (ITU-T H.264 table 7-1)."""


def is_keyframe(data: bytes) -> bool:
    """Whether a whole coded picture, VP8 or H.264 in Annex B form, is a keyframe."""
    if data[3:6] == VP8_START_CODE and not data[0] & 1:  # RFC 6386 section 9.1
        return True
    start = 0
    while (start := data.find(H264_START_CODE, start)) >= 0:
        start += len(H264_START_CODE)
        if start >= len(data):
            break
        kind = data[start] & 0x1F
        if kind in (IDR, SPS):
            return True
        if 1 <= kind < IDR:  # a slice of another picture: what follows is of the same
            break
    return False
