"""The networks: own implementations with torchvision's key names, one file per family."""
