"""What a sample is, readers of data files, and the procedural corpora of the miniature."""
