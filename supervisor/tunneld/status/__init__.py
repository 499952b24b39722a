"""What a tunnel says about itself, as values, as one line, and as a page."""
