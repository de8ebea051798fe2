"""How a number is taken: fresh processes, interleaved, with the machine's facts."""
