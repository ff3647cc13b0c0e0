"""What the learning-dynamics study claims, as verdicts of the same machinery as the first study's."""
