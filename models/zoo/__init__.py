"""The networks: one file per family, with torchvision's key names."""
