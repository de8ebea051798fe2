"""Training: one loop, recipes as data, and a run that continues bit for bit."""
