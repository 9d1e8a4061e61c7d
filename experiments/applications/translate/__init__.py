"""Translation from French to English."""
