// Frames up, results down, by @roamhq/wrtc (libwebrtc for Node.js): node frames_peer.cjs URL COUNT
// Prints what came: {"count", "width", "height"}.
const { RTCPeerConnection, nonstandard } = require("@roamhq/wrtc");

const [url, count] = [process.argv[2], Number(process.argv[3])];
const [width, height] = [640, 360];

async function main() {
  const pc = new RTCPeerConnection();
  const source = new nonstandard.RTCVideoSource();
  const transceiver = pc.addTransceiver(source.createTrack(), { direction: "sendrecv" });
  const sink = new nonstandard.RTCVideoSink(transceiver.receiver.track);
  let came = 0;
  sink.onframe = ({ frame }) => {
    if (++came < count) return;
    console.log(JSON.stringify({ count: came, width: frame.width, height: frame.height }));
    process.exit(0);
  };
  await pc.setLocalDescription(await pc.createOffer());
  while (pc.iceGatheringState !== "complete") await new Promise((done) => setTimeout(done, 20));
  const headers = { "Content-Type": "application/sdp" };
  const answer = await fetch(url, { method: "POST", headers, body: pc.localDescription.sdp });
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
  await pc.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  const data = new Uint8ClampedArray((width * height * 3) / 2).fill(128);
  let number = 0;
  setInterval(() => {
    data.fill((number++ * 3) % 200, 0, width * height);
    source.onFrame({ width, height, data });
  }, 33);
}

main().catch((error) => { console.error(error); process.exit(1); });
