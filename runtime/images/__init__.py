"""From pixels to the network's input, and from its output to an answer."""
