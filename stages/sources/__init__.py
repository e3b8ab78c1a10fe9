"""Where data come from: fetching files, reading the images of a source, decoding them."""
