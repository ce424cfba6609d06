"""An HTTP server for one model, with the APIs of OpenAI, Anthropic and llama-server.

It needs ``pip install "maskprobe[server]"``.

>>> from maskprobe.server import Settings, create_app
>>> app = create_app(llm, Settings(names=("my-model",)))  # doctest: +SKIP
"""

from .answering import Patience
from .app import LOCAL_HOSTS, Settings, create_app
from .batches import Batch
from .run import bind, host_of, is_local, serve, url_of

__all__ = [
    "LOCAL_HOSTS",
    "Batch",
    "Patience",
    "Settings",
    "bind",
    "create_app",
    "host_of",
    "is_local",
    "serve",
    "url_of",
]
