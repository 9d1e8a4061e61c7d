"""Simple baseline models, with which several studies compare their networks."""
