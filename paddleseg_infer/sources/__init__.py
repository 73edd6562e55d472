"""Where images come from: a name, a size without decoding, and pixels."""
