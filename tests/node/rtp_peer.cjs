// RTP packets of VP8 up, those of the results down, by a library that brings no codecs:
// node rtp_peer.cjs werift|node-datachannel URL COUNT
// Prints the UDP port on which it takes packets, then what came: {"count", "width", "height"}.
const { createSocket } = require("node:dgram");

const [library, url, count] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const TYPE = 96;

let [came, width, height] = [0, 0, 0];

// Counts pictures by their markers; the size is in a keyframe (RFC 6386, section 9.1).
function take(packet) {
  if ((packet[1] & 127) !== TYPE) return;
  const start = packet.indexOf(Buffer.from([0x9d, 0x01, 0x2a]));
  if (start > 0 && start < 40) [width, height] = [packet.readUInt16LE(start + 3) & 0x3fff, packet.readUInt16LE(start + 5) & 0x3fff];
  if (packet[1] & 128 && ++came >= count && width) {
    console.log(JSON.stringify({ count: came, width, height }));
    process.exit(0);
  }
}

async function exchange(offer) {
  const headers = { "Content-Type": "application/sdp" };
  const answer = await fetch(url, { method: "POST", headers, body: offer });
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
  return answer.text();
}

const PEERS = {
  async werift() {
    const { MediaStreamTrack, RTCPeerConnection, RTCRtpCodecParameters } = require("werift");
    const codec = new RTCRtpCodecParameters({ mimeType: "video/VP8", clockRate: 90000, payloadType: TYPE });
    const pc = new RTCPeerConnection({ codecs: { video: [codec], audio: [] } });
    const track = new MediaStreamTrack({ kind: "video" });
    const transceiver = pc.addTransceiver(track, { direction: "sendrecv" });
    transceiver.onTrack.subscribe((back) => back.onReceiveRtp.subscribe((packet) => take(packet.serialize())));
    await pc.setLocalDescription(await pc.createOffer());
    await pc.setRemoteDescription({ type: "answer", sdp: await exchange(pc.localDescription.sdp) });
    return (packet) => track.writeRtp(packet);
  },
  async "node-datachannel"() {
    const { PeerConnection, Video } = require("node-datachannel");
    const pc = new PeerConnection("peer", { iceServers: [] });
    const video = new Video("0", "SendRecv");
    video.addVP8Codec(TYPE);
    video.addSSRC(SSRC, "peer");
    const track = pc.addTrack(video);
    track.onMessage((packet) => take(Buffer.from(packet)));
    const gathered = new Promise((done) => pc.onGatheringStateChange((state) => state === "complete" && done()));
    pc.setLocalDescription("offer");
    await gathered;
    pc.setRemoteDescription(await exchange(pc.localDescription().sdp), "answer");
    return (packet) => {
      packet.writeUInt32BE(SSRC, 8);
      if (track.isOpen()) track.sendMessageBinary(packet);
    };
  },
};
const SSRC = 4711;

PEERS[library]().then((send) => {
  const socket = createSocket("udp4");
  socket.on("message", (packet) => { if ((packet[1] & 127) === TYPE) send(packet); });
  socket.bind(0, "127.0.0.1", () => console.log(socket.address().port));
}).catch((error) => { console.error(error); process.exit(1); });
