"""The claims of the data-quality study."""
