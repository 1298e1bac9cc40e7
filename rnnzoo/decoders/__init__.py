"""The networks that are searched: decoders with attention to a sequence or to an image, of one step each."""
