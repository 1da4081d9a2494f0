/**
 * Streams JPEG files to the service and writes one mask for each: frame.jpg becomes frame.pgm.
 *
 *   node stream.mjs localhost:50051 frames/*.jpg
 *
 * A service that asks for a token gets the one in the environment variable TOKEN; TLS is used when CA names a PEM file.
 */
import { readFileSync, writeFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const PROTOS = new URL("../../../protos/", import.meta.url).pathname;

/** Frames sent and not yet answered: one at work, one on its way. More would only wait. */
const IN_FLIGHT = 2;

const [target, ...files] = process.argv.slice(2);
if (files.length === 0) {
  console.error("usage: node stream.mjs HOST:PORT FILE.jpg...");
  process.exit(2);
}
const definition = protoLoader.loadSync("portrait/v1/segmentation.proto", {
  includeDirs: [PROTOS],
  keepCase: true,
  enums: String,
  longs: Number,
  defaults: true,
  oneofs: true,
});
const { SegmentationService } = grpc.loadPackageDefinition(definition).portrait.v1;
const credentials = process.env.CA
  ? grpc.credentials.createSsl(readFileSync(process.env.CA))
  : grpc.credentials.createInsecure();
const metadata = new grpc.Metadata();
if (process.env.TOKEN) metadata.set("authorization", `Bearer ${process.env.TOKEN}`);

const client = new SegmentationService(target, credentials, { "grpc.max_receive_message_length": -1 });
const call = client.SegmentStream(metadata);
let sent = 0;

function sendNext() {
  if (sent === files.length) return call.end();
  const picture = { format: "PICTURE_FORMAT_JPEG", data: readFileSync(files[sent]) };
  call.write({ frame: { id: sent, timestamp_us: sent * 33_333, picture } });
  sent += 1;
}

call.on("data", ({ message, info, result }) => {
  if (message === "info") {
    console.error(`session ${info.session_id}, model ${info.model.name} ${info.model.width}x${info.model.height}`);
    for (let i = 0; i < IN_FLIGHT && i < files.length; i += 1) sendNext();
  } else if (message === "result") {
    if (result.error) {
      console.error(`${files[result.id]}: ${result.error.message}`);
      process.exitCode = 1;
    } else {
      const { width, height, data } = result.picture;
      const header = Buffer.from(`P5 ${width} ${height} 255\n`);
      writeFileSync(files[result.id].replace(/\.[^.]*$/, ".pgm"), Buffer.concat([header, data]));
    }
    sendNext();
  }
});
call.on("error", (error) => {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
});
call.on("end", () => client.close());
call.write({ config: { output: { mode: "mask" }, delivery: "DELIVERY_EVERY_FRAME" } });
