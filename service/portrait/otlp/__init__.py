"""What is sent over OTLP to an OpenTelemetry collector: what traces and metrics have in common, and the metrics."""
