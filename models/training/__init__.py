"""Training: one loop, recipes as data, and bit-exact resumption of a run."""
