// Any software that takes a track: here a plain RTCPeerConnection.
import { connect, type PortraitSession, type Stats } from "portrait-client";
import { processTrack, sessionOf } from "portrait-client/track";

export async function send(connection: RTCPeerConnection, server: string): Promise<MediaStreamTrack> {
  const [camera] = (await navigator.mediaDevices.getUserMedia({ video: true })).getVideoTracks();
  if (camera === undefined) throw new Error("got no camera");
  const track = await processTrack(camera, { server, mode: "blur" });
  connection.addTrack(track);
  return track;
}

export async function framesPerSecond(track: MediaStreamTrack): Promise<number> {
  const stats: Stats | undefined = await sessionOf(track)?.stats();
  return stats?.framesPerSecond ?? 0;
}

export async function show(video: HTMLVideoElement, stream: MediaStream, server: string): Promise<PortraitSession> {
  const session = await connect(stream, { server, where: "auto", result: "data", mode: "blur" });
  video.srcObject = session.output;
  session.addEventListener("closed", (event) => console.log((event as CustomEvent<string>).detail));
  return session;
}
