"""The real thing: an image built, containers run, replicas killed. `make deploy-test`."""
