"""Text categorisation: SMS spam and questions."""
