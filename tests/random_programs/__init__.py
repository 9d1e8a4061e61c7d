"""Random programs: networks that hypothesis writes, and what every rule owes them."""
