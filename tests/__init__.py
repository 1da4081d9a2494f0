"""Behaviour, proved on real parts.

Files named `test_*` hold tests; fixtures that all may use are in `conftest.py`. The others are what tests are made of:

- who comes: `people` (clips with exact masks), `frames`, `films`, `calls` (gRPC), `posts` (HTTP), `rtc` and `whip`
  (WebRTC, by aiortc), `browser`, `firefox`, `tabs` and `pages` (browsers); as processes of their own `rtc_client`, and
  of other makers `whip_client`, `triton_peer`, `camera_peer` and `rtsp_peer`;
- where they come to: `boxes` (`portrait serve` as a process), `two_workers`, `credentials` (services that ask for
  them), `origins`, `ports`, `embedded` (the model);
- trouble: `fakes` (networks that fail or wait), `proxy` (a wire that is cut), `claims` and `mutations` (bytes),
  `messages`, `targets` and `fuzz` (whatever reads bytes), `watermark` (whether the room is seen);
- pages: `snippets` (what docs tell people to type), `proto_tables` (tables that are made).

`faults` has machines, peers and workers in trouble, `network` networks of the kernel's own, `deploy` what operators are
given, `training` the network's, and `benchmarks` what is measured.
"""
