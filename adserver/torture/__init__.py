"""The proof that counting is exact: the real service of this machine under load, killed, cut off and rolled back.

Nothing of the service imports this package; `adserver torture` does, when it is asked to.
"""
