"""Real-time person segmentation on ordinary CPUs.

The floors, top to bottom; imports point down only (tests/test_architecture.py):

    app, cli            what is built and run
    transports          WebRTC, gRPC, HTTP, files: wire to Frame, result to wire, and one loop
    session             one stream's life: its thread, its pipeline, its numbers
    pipeline, latest    the synchronous core; the slot of one
    segmenters, compositors, pictures, metrics
    frame, mask, errors, settings
"""

__version__ = "0.1.0"
