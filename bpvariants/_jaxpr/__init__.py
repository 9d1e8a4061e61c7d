"""Analysis and rewriting of jaxprs; only this subpackage refers to JAX primitives."""
