"""What runs first on a machine with an NVIDIA GPU (`make gpu-check`): its tests, and the zoo by every way."""
