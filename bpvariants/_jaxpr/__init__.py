"""Reading and rewriting programs (jaxprs): the only place that names primitives."""
