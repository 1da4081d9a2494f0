"""What a coded picture says before it is decoded: whether it needs those before it, and its size."""

from contextlib import suppress

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


def coded_size(data: bytes) -> tuple[int, int] | None:
    """The width and height that a keyframe, VP8 or H.264 in Annex B form, gives its pictures; None where it gives none.

    Of an H.264 picture with several sequence parameter sets, the largest.
    """
    if data[3:6] == VP8_START_CODE and not data[0] & 1 and len(data) >= 10:
        return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
    sizes = []
    start = 0
    while (start := data.find(H264_START_CODE, start)) >= 0:
        start += len(H264_START_CODE)
        if start < len(data) and data[start] & 0x1F == SPS:
            with suppress(IndexError):  # cut short: the decoder refuses it
                sizes.append(_size_of_sps(data[start + 1 : start + 1 + LONGEST_SPS]))
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


LONGEST_SPS = 1024
"""Bytes of a sequence parameter set that are looked at. With all scaling lists the size is within the first 700."""

WITH_CHROMA_FORMAT = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 144, 244}
"""Profiles whose sequence parameter sets say how chroma is sampled (ITU-T H.264 section 7.3.2.1.1)."""


class _Bits:
    """Bits of a NAL unit, without those that keep start codes out of it (ITU-T H.264 section 7.3.1).

    Raises:
        IndexError: there are no more.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data.replace(b"\0\0\x03", b"\0\0"), 0

    def read(self, count: int) -> int:
        """An unsigned number of so many bits."""
        value = 0
        for at in range(self._at, self._at + count):
            value = value << 1 | self._data[at >> 3] >> (7 - (at & 7)) & 1
        self._at += count
        return value

    def golomb(self) -> int:
        """An unsigned Exp-Golomb code (ibid. section 9.1)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)

    def signed_golomb(self) -> int:
        """A signed one (ibid. section 9.1.1)."""
        code = self.golomb()
        return (code + 1) // 2 if code & 1 else -(code // 2)


def _size_of_sps(data: bytes) -> tuple[int, int]:
    """The size of a sequence parameter set's pictures, cropped (ITU-T H.264 section 7.3.2.1.1).

    Raises:
        IndexError: it is cut short.
    """
    bits = _Bits(data)
    profile = bits.read(8)
    bits.read(16)  # constraints and level
    bits.golomb()
    chroma = 1
    if profile in WITH_CHROMA_FORMAT:
        chroma = _read_chroma_format(bits)
    bits.golomb()
    match bits.golomb():  # how pictures are put in order
        case 0:
            bits.golomb()
        case 1:
            bits.read(1)
            for _ in range(2):
                bits.golomb()
            for _ in range(bits.golomb()):
                bits.golomb()
    bits.golomb()
    bits.read(1)
    width, height = 16 * (bits.golomb() + 1), 16 * (bits.golomb() + 1)
    fields = 1 - bits.read(1)
    if fields:
        bits.read(1)
    bits.read(1)
    if bits.read(1):
        left, right, top, bottom = (bits.golomb() for _ in range(4))
        width -= (left + right) * (2 if chroma in (1, 2) else 1)
        height = height * (1 + fields) - (top + bottom) * (2 if chroma == 1 else 1) * (1 + fields)
    else:
        height *= 1 + fields
    return width, height


def _read_chroma_format(bits: _Bits) -> int:
    """Read over what high profiles have besides; gives the number of the chroma format."""
    chroma = bits.golomb()
    if chroma == 3:
        bits.read(1)
    for _ in range(2):
        bits.golomb()  # bit depths
    bits.read(1)
    if bits.read(1):
        for number in range(12 if chroma == 3 else 8):
            if bits.read(1):
                _skip_scaling_list(bits, 16 if number < 6 else 64)
    return chroma


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed_golomb()) % 256
        last = following or last
