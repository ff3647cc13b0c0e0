"""The learning-dynamics study's figures."""
