"""Taking a measurement: fresh processes, interleaved, with the facts of the machine."""
