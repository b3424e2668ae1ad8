"""Fast twins of formulas: each file holds a formula and the twins that must equal it.

``torch.compile`` fuses a chain of small operations by itself; eager code does not, so there a twin
takes fewer passes over memory and has its gradients derived by hand. :mod:`.twins` is the one
place that decides which of the two runs. Every file has a test that holds twin to formula.
"""
