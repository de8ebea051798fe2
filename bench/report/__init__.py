"""Results as one page that works offline."""
