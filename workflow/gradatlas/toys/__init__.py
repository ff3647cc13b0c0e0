"""The smallest settings in which the study's claims can be watched: a softmax, an image classifier, a clipped loss."""
