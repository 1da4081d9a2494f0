// Tells the page the RTP timestamp of every frame that leaves the encoder; the frame itself goes on untouched.
addEventListener("rtctransform", (event) => {
  const { readable, writable } = /** @type {any} */ (event).transformer;
  const tell = new TransformStream({
    transform(frame, controller) {
      postMessage(frame.getMetadata().rtpTimestamp ?? frame.timestamp);
      controller.enqueue(frame);
    },
  });
  readable.pipeThrough(tell).pipeTo(writable).catch(() => {}); // the connection was closed
});
