"""`accelerate`: the fused operators in any network, in place.

swap.py        accelerate: which modules get which class, which chains are tied together
report.py      what was done, and why no more
chain.py       a convolution with the norm and the activation after it, run as one
sequential.py  an nn.Sequential that runs its chains
modules.py     the classes that modules get, and how those of a chain work together in somebody's forward
proof.py       what such a forward is proved to do, and what the proof rests on
reader.py, calls.py, expressions.py, values.py, harmless.py, source.py   how it is read
"""
