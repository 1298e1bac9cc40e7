"""Matrix products by the library that is the fastest on this processor."""
