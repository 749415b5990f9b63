"""onehost: many servers, one host.

Panels import `onehost.producer`; nodes run `onehost.workers`; both share the words in `onehost.models`.
"""

__version__ = "0.1.0"
