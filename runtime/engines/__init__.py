"""TensorRT engines: built in a child process, described by a sidecar, loaded only after a check of the digest."""
