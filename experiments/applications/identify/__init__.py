"""Online identification of a plant, before and after it changes."""
