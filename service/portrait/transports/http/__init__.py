"""HTTP: stills, sessions, metrics, the page, and signalling for WebRTC."""
