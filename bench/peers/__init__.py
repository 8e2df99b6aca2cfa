"""The contenders. Each module is one: it loads a model and answers rounds on its standard streams.

`PRECISIONS` of a module are those it takes; with `FROM_GGUF` it loads the GGUF file that the
checkpoint was made from. What a peer needs is imported in its functions only: the judge reads the
module in an environment that has none of it.
"""
