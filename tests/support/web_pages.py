"""Pages served while a test looks at them."""

import contextlib
import threading
import time

import uvicorn

from odtrain.io.connections import PatientProtocol
from odtrain.web import guard as web


@contextlib.contextmanager
def running(app):
    """The port at which an app is served, for a while."""
    with contextlib.closing(web._listen("127.0.0.1", 0, "test page")) as listener:
        settings = uvicorn.Config(
            app,
            log_level="error",
            lifespan="off",
            timeout_graceful_shutdown=1,
            http=PatientProtocol,
            ws="none",
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
