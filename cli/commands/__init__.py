"""One file a verb; each holds a click command of the same name."""
