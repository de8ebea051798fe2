"""How two numbers are judged: faster, slower, the same, or cannot tell."""
