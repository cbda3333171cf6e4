"""Control tokens on a frozen backbone (MOSAIC, arXiv 2603.16210): what they are, where they stand, files."""
