"""Tests of behaviour, with real parts: processes, browsers, networks, clients of other makers.

Files named `test_*` hold tests; `conftest.py` holds the fixtures that all of them may use, and the order in which files
are handed out. The other modules are what tests are made of.

Clients:
- `people`, `films`, `frames`: clips of a person with exact masks, video files, single frames; `profiles`: colour
  profiles;
- `calls` (gRPC), `posts` (HTTP), `rtc` and `whip` (WebRTC, by aiortc), `handmade` (RTP, packet by packet);
  `rtc_client`: a client as a process of its own;
- `browser`, `firefox`: Chromium and Firefox, shared by the tests of a file; `pages` drives the page at /, `tabs` the
  module /portrait.js, with `web/kit.js` inside the browser;
- `whip_client` (GStreamer), `triton_peer`, `camera_peer`, `rtsp_peer` and `rtsp_recorder`: programs that are not ours;
  `http_camera`: a camera that does what a test asks of it.

Services:
- `boxes`: `portrait serve` as a process, `two_workers` with two; `credentials`: with tokens, TLS and authorities;
- `fakes`: models that fail, wait or answer what a test says; `embedded`: facts about the shipped model;
- `origins`: a second web server; `ports`: free ports.

Faults:
- `proxy`: a TCP connection that can be cut; `claims`, `mutations`, `messages`: bytes and messages with a defect;
- `targets`, `fuzz`: every parser of outside bytes, for `corpus/` and `make fuzz`;
- `watermark`: whether a picture shows the camera's background.

Documents: `snippets` reads what pages tell people to type, `proto_tables` writes the protocol's tables.

`timing` holds the times and rates that only a quiet machine keeps (`make timing`). `faults/` breaks machines, peers,
processes and, with `make mutants`, the package itself; `network/` builds networks from kernel namespaces; `deploy/`
reads and runs what operators are given; `training/` belongs to the model's training; `benchmarks/` measures.
"""
