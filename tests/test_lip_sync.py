"""A publisher that is GStreamer, seen and heard in Chromium: sound and picture of one moment are there together."""

from pathlib import Path
from statistics import median

import pytest

from portrait.server.app import run_service
from portrait.settings import Settings
from tests import whip_client
from tests.browser import open_page
from tests.origins import elsewhere
from tests.timing import at_most

FLASHES = (
    "videotestsrc is-live=true pattern=ball flip=true ! "
    "video/x-raw,width=320,height=240,framerate=25/1 ! videoconvert ! "
    "vp8enc deadline=1 target-bitrate=500000 keyframe-max-dist=60 ! rtpvp8pay pt=96 ssrc=2 ! "
    "capsfilter caps=application/x-rtp,media=video,encoding-name=VP8,payload=96"
)
"""A small ball before a picture that changes between black and white every fifty frames: every two seconds."""

BEEPS = (
    "audiotestsrc is-live=true samplesperbuffer=480 wave=ticks tick-interval=1000000000 sine-periods-per-tick=88 "
    "freq=440 ! audioconvert ! audioresample ! opusenc ! rtpopuspay pt=100 ssrc=1 ! "
    "capsfilter caps=application/x-rtp,media=audio,encoding-name=OPUS,payload=100"
)
"""A fifth of a second of 440 Hz every second."""

EARLY = 0.01
"""Seconds by which every beep but the first is early: GStreamer 1.22 begins it a buffer before the second."""

FLASHES_SEEN, SETTLED = 12, 6
"""How many changes of the picture are waited for, and how many of them are judged: browsers align sound and picture by
small steps, as sender reports come in."""

ENERGY = 0.8**2 / 2
"""The mean square of a beep: GStreamer's volume is 0.8."""

PAGE = "<video autoplay playsinline></video>"

WATCH = """async (url) => {
  const video = document.querySelector("video");
  const noted = (window.noted = { flashes: [], beeps: [], energy: [] });
  const connection = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  const shown = new MediaStream();
  connection.addTransceiver("video", { direction: "recvonly" });
  connection.addTransceiver("audio", { direction: "recvonly" });
  connection.addEventListener("track", ({ track, streams }) => (video.srcObject = streams[0]));
  await connection.setLocalDescription();
  await new Promise((done) => {
    const check = () => connection.iceGatheringState === "complete" && done();
    connection.addEventListener("icegatheringstatechange", check);
    check();
  });
  const body = connection.localDescription.sdp;
  const response = await fetch(url, { method: "POST", headers: { "Content-Type": "application/sdp" }, body });
  if (!response.ok) return response.status;
  await connection.setRemoteDescription({ type: "answer", sdp: await response.text() });
  window.connection = connection;

  const canvas = new OffscreenCanvas(1, 1);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let wasWhite = null;
  const look = (now, { expectedDisplayTime }) => {
    video.requestVideoFrameCallback(look);
    pen.drawImage(video, 8, 8, 16, 16, 0, 0, 1, 1);
    const white = pen.getImageData(0, 0, 1, 1).data[0] > 128;
    if (wasWhite !== null && white !== wasWhite) noted.flashes.push(expectedDisplayTime / 1000);
    wasWhite = white;
  };
  video.requestVideoFrameCallback(look);

  const context = new AudioContext();
  const code = `registerProcessor("ear", class extends AudioWorkletProcessor {
    quiet = sampleRate;
    energy = 0;
    process([[samples]]) {
      for (let i = 0; samples && i < samples.length; i++) {
        const loud = Math.abs(samples[i]) > 0.05;
        if (loud && this.quiet > sampleRate / 4) this.begin = (currentFrame + i) / sampleRate;
        this.quiet = loud ? 0 : this.quiet + 1;
        this.energy += samples[i] ** 2;
        if (this.begin === undefined || (currentFrame + i) / sampleRate < this.begin + 0.1) continue;
        this.port.postMessage({ at: this.begin, energy: this.energy / (0.1 * sampleRate) });
        this.begin = undefined;
      }
      if (this.begin === undefined) this.energy = 0;
      return true;
    }
  })`;
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  const ear = new AudioWorkletNode(context, "ear");
  ear.port.addEventListener("message", ({ data: { at, energy } }) => {
    const { contextTime, performanceTime } = context.getOutputTimestamp();
    noted.beeps.push(performanceTime / 1000 + at - contextTime);
    noted.energy.push(energy);
  });
  ear.port.start();
  context.createMediaStreamSource(video.srcObject).connect(ear).connect(context.destination);
  return response.status;
}"""


@pytest.mark.timing
@pytest.mark.skipif(whip_client.missing() is not None, reason=str(whip_client.missing()))
async def test_gstreamer_is_seen_and_heard_in_chromium_in_step(tmp_path: Path) -> None:
    async with elsewhere(tmp_path, PAGE) as origin:
        settings = Settings(http_port=0, grpc_port=0, drain_seconds=0.0, origins=origin)
        async with (
            run_service(settings) as service,
            open_page(origin, tmp_path / "profile", None) as page,
            whip_client.publishing(
                tmp_path, f"{(url := f'http://127.0.0.1:{service.http_port}')}/whip/desk", "none", "--audio", BEEPS,
                video=FLASHES,
            ),
        ):  # fmt: skip
            while await page.evaluate(WATCH, f"{url}/whep/desk") != 201:
                await page.wait_for_timeout(300)
            await page.wait_for_function(f"noted.flashes.length >= {FLASHES_SEEN}")
            noted = await page.evaluate("noted")
    offsets = [min((beep + EARLY - flash for beep in noted["beeps"]), key=abs) for flash in noted["flashes"]]
    print(f"sound after picture, ms: {[round(1000 * each) for each in offsets]}")
    assert ENERGY / 4 < median(noted["energy"]) < 2 * ENERGY
    at_most("a beep is off its flash in Chromium by, seconds", abs(median(offsets[-SETTLED:])), 0.1)
