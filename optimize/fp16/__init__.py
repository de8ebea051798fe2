"""FP16 and BF16: a strongly typed graph with explicit Casts, and its rounding simulated."""
