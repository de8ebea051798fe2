"""Resumable sweeps of many measurements, on this machine or on a cluster."""
