"""Cross-layer equalisation and explicit channel scales."""
