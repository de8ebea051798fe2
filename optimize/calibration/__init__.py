"""What calibration images show of a graph's tensors: samples in, histograms and moments out."""
