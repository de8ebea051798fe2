"""Modelled latency: the device catalogue and the roofline."""
