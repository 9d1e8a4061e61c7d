"""Analysis and rewriting of jaxprs; only this subpackage names JAX primitives."""
