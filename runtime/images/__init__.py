"""Preprocessing of images to the network's input, and postprocessing of its output to an answer."""
