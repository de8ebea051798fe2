"""Many measurements, resumable, here or on a cluster."""
