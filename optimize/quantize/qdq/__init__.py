"""Explicit QuantizeLinear and DequantizeLinear nodes, and the graph around them."""
