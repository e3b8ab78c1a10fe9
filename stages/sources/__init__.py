"""Reading the images of a dataset from whatever they lie in, and decoding them."""
