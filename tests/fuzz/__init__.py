"""Every operator, called with drawn arguments, good and absurd, in child processes that may die.

    PYTHONPATH=tests python -m fuzz --calls 600        # `make fuzz`; prints what was called, what died, what was wrong

values.py draws tensors and numbers, public.py calls of the public functions beside their references, registered.py
calls of torch.ops.inpaint_fast, trial.py judges one call, child.py runs many of them, __main__.py counts.
"""
