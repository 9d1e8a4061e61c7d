"""Classification of short texts: SMS spam, and kinds of questions."""
