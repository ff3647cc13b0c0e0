"""Errors, files, tables, digests, the device lease and the command line. Decides no number."""
