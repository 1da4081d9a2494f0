"""Freeing a closed connection at once."""

from typing import Any

from aiortc import RTCPeerConnection

from portrait.transports.webrtc.aiortc_patches.data_channels import REPLACED


def release(pc: RTCPeerConnection) -> None:
    """Break the reference cycles of a closed connection.

    Its parts listen to each other. Without this, codecs, certificates and buffers of ended sessions, megabytes each,
    stay until a full garbage collection, which in a long-running service may take hours.
    """
    internals: Any = pc
    for transceiver in pc.getTransceivers():
        sender: Any = transceiver.sender
        sender.replaceTrack(None)
        sender._RTCRtpSender__encoder = None
        vars(sender).pop("_send_rtcp", None)
        sender._RTCRtpSender__rtp_history.clear()
        receiver: Any = transceiver.receiver
        vars(receiver).pop("_handle_rtcp_packet", None)
        receiver._RTCRtpReceiver__jitter_buffer = receiver._RTCRtpReceiver__nack_generator = None
        receiver._RTCRtpReceiver__decoder_queue = receiver._RTCRtpReceiver__remote_bitrate_estimator = None
    for dtls in internals._RTCPeerConnection__dtlsTransports:
        dtls.remove_all_listeners()
        dtls._ssl = dtls._rx_srtp = dtls._tx_srtp = None
    for ice in internals._RTCPeerConnection__iceTransports:
        ice._connection.cameras = None
        ice.remove_all_listeners()
        ice.iceGatherer.remove_all_listeners()
    if (sctp := internals._RTCPeerConnection__sctp) is not None:
        sctp.remove_all_listeners()
        for name in REPLACED:
            vars(sctp).pop(name, None)
    pc.remove_all_listeners()
