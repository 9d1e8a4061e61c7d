"""Reading and rewriting jaxprs; only this subpackage uses names of JAX primitives."""
