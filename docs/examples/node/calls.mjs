/** Each gRPC call of the service once: node calls.mjs HOST:PORT FILE.jpg [STREAM] */
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const [target, file, named] = process.argv.slice(2);
if (!file) {
  console.error("usage: node calls.mjs HOST:PORT FILE.jpg [STREAM]");
  process.exit(2);
}
const PROTOS = new URL("../../../protos/", import.meta.url).pathname;
const definition = protoLoader.loadSync(["portrait/v1/segmentation.proto", "portrait/kserve/inference.proto"], {
  includeDirs: [PROTOS], keepCase: true, enums: String, longs: Number, defaults: true, oneofs: true,
});
const { portrait, inference } = grpc.loadPackageDefinition(definition);
const credentials = grpc.credentials.createInsecure();
const client = new portrait.v1.SegmentationService(target, credentials);
const picture = { format: "PICTURE_FORMAT_JPEG", data: readFileSync(file) };

/** A call with one answer, as a promise. */
const ask = (service, method, request) => promisify(service[method].bind(service))(request);

async function listModels() {
  const { models } = await ask(client, "ListModels", {});
  const { name, width, height } = models.find((model) => model.default);
  console.log(`ListModels: ${name} ${width}x${height}`);
}

async function segment() {
  const output = { mode: "cutout", format: "PICTURE_FORMAT_PNG" };
  const reply = await ask(client, "Segment", { picture, output });
  console.log(`Segment: ${reply.picture.width}x${reply.picture.height}`);
}

/** Sends three frames, each after the result of the one before. */
async function segmentStream() {
  const stream = client.SegmentStream();
  stream.write({ config: { output: { mode: "mask" }, delivery: "DELIVERY_EVERY_FRAME" } });
  let sent = 0;
  for await (const { message, result } of stream) {
    if (message === "result") {
      if (result.error) throw new Error(result.error.message);
      console.log(`SegmentStream: ${result.id} ${result.picture.width}x${result.picture.height}`);
    }
    if (message === "goaway") continue; // the server stops: its results go on for a while
    if (sent === 3) stream.end();
    else stream.write({ frame: { id: sent, timestamp_us: sent++ * 33_333, picture } });
  }
}

async function watch() {
  const results = client.Watch({ stream: named });
  for await (const { result } of results) {
    console.log(`Watch: ${result.picture.width}x${result.picture.height}`);
    break;
  }
  results.cancel();
}

async function check() {
  // grpc.health.v1.Health: HealthCheckRequest.service is field 1, and so is HealthCheckResponse.status.
  const service = Buffer.from("portrait.v1.SegmentationService");
  const request = Buffer.concat([Buffer.from([0x0a, service.length]), service]);
  const bytes = (buffer) => buffer;
  const health = new grpc.Client(target, credentials);
  const unary = promisify(health.makeUnaryRequest.bind(health));
  const [, status] = await unary("/grpc.health.v1.Health/Check", bytes, bytes, request);
  console.log(`Check: ${["UNKNOWN", "SERVING", "NOT_SERVING"][status]}`);
  health.close();
}

async function modelInfer() {
  const kserve = new inference.GRPCInferenceService(target, credentials);
  const image = { name: "image", datatype: "BYTES", shape: [1], contents: { bytes_contents: [picture.data] } };
  const { outputs } = await ask(kserve, "ModelInfer", { model_name: "portrait", inputs: [image] });
  console.log(`ModelInfer: ${outputs[0].name} [${outputs[0].shape.join(" ")}]`);
  kserve.close();
}

await listModels();
await segment();
await segmentStream();
if (named) await watch();
await check();
await modelInfer();
client.close();
