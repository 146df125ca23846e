"""The real servers that the tests talk to: how to get, start and end them."""
