"""TensorRT engines: built in a child process, described by a sidecar, loaded only when their digest is known."""
