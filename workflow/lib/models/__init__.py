"""Finding and loading models; training the miniatures."""
