"""The pictures of a report, one a file, drawn with matplotlib's own canvas: no display, no global state."""
