"""Errors, files, tables, digests, the GPU lease and the command line. Nothing here changes a result."""
