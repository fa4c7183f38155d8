"""A server of saved models that speaks the Open Inference Protocol V2.

Nothing is imported here: the process that parses requests needs neither torch nor Ray.
"""

__all__ = ()
