"""Runs the product from outside, as a user would: by its command line, in a home of its own."""
