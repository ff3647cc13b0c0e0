"""The config and the sheets, checked: what is to be run."""
