"""Networks that people use, in plain torch.nn, with the control flow of the originals and channels to choose.

What `accelerate` fuses of them is tested with few channels, how fast it makes them is measured with as many as they
have.
"""
