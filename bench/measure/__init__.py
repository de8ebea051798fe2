"""Measurement in fresh, interleaved processes, with a record of the machine."""
