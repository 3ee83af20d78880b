"""What a model's outputs are worth: scores over a set of pairs, and the pairs it is worst at."""
