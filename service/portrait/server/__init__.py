"""The composition root: build the service, start it, stop it, reload it."""
