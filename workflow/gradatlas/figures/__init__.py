"""The kinds of figures and the tables of the first study, each a function of a frame."""
