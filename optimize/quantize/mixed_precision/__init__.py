"""Which layers stay in float: a search under an accuracy budget, and a latency model."""
