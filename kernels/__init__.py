"""Triton kernels, one file an operator; installed as inpaint_fast.kernels and imported by an operator's first call."""
