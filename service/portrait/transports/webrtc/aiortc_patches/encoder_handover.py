"""A sender's encoder in the hands of the code that makes its pictures."""

from typing import Any

from portrait.transports.webrtc.aiortc_patches.video_encoders import PictureEncoder


def hand_over(transceiver: Any, encoder: PictureEncoder) -> None:
    """Let `encoder` encode for this section's sender, whose codec is negotiated; its track returns EncodedPictures.

    A picture then changes threads once. aiortc would encode on the event loop's default executor, after the session's
    thread has handed the picture to the loop.
    """
    sender = transceiver.sender
    # The sender moves its bit rate by the receiver's estimate, packs what `encode` returned, and lets go of it at the
    # end.
    sender._RTCRtpSender__encoder = encoder.open(transceiver._codecs[0])
    sender._send_keyframe = encoder.want_keyframe
