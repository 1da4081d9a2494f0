"""What schemathesis has to be told of our media types; it is run by its own interpreter."""

import schemathesis

schemathesis.serializer.alias(["application/sdp", "application/trickle-ice-sdpfrag"], "text/plain")
