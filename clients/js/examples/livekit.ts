// A LiveKit room whose camera shows the person before an office.
import { createLocalVideoTrack, Room, Track, type TrackProcessor } from "livekit-client";
import { PortraitError, type Options } from "portrait-client";
import { PortraitProcessor } from "portrait-client/livekit";

export async function publish(room: Room, server: string): Promise<PortraitProcessor> {
  const options: Options = { server, result: "data", mode: "image", background: "office" };
  const processor = new PortraitProcessor(options);
  const asLiveKitHasIt: TrackProcessor<Track.Kind.Video> = processor;
  const camera = await createLocalVideoTrack();
  try {
    await camera.setProcessor(asLiveKitHasIt);
  } catch (error) {
    camera.stop(); // rather no picture than one of the room
    throw error instanceof PortraitError ? new Error(`${error.reason}, try again in ${error.retryAfter} s`) : error;
  }
  await room.localParticipant.publishTrack(camera);
  return processor;
}

export async function changeMode(processor: PortraitProcessor, mode: Options["mode"] & string): Promise<void> {
  await processor.session?.setMode(mode);
}
