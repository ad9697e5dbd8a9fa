"""
A room in Django Channels for those who have logged in to Django. Foreign pages stay out, whose cookies they may bring.

Run it here, with a certificate for localhost, and log in at https://localhost:8443/login:

    export APP_SECRET_KEY=…
    python manage.py migrate
    python manage.py createsuperuser
    uvicorn app:app --port 8443 --ssl-certfile cert.pem --ssl-keyfile key.pem --no-proxy-headers

APP_ORIGINS: the pages that may connect, separated by blanks. APP_TRUSTED_PROXIES: the proxies in front, if there are.
Daphne needs one: it does not tell an app whether a socket came over TLS.
"""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

from wsguard import Policy
from wsguard.asgi import WebSocketGuard

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
pages = get_asgi_application()  # before anything that imports models

from consumers import Room  # noqa: E402
from django.conf import settings  # noqa: E402
from django.urls import path  # noqa: E402
from sessions import DjangoSession  # noqa: E402

sockets = AuthMiddlewareStack(URLRouter([path("ws/room", Room.as_asgi())]))

app = WebSocketGuard(
    ProtocolTypeRouter({"http": pages, "websocket": sockets}),
    routes={
        "/ws/*": Policy(origins=settings.ORIGINS, auth=["django_session"], max_message=4096),
        "/*": Policy(origins=settings.ORIGINS, anonymous=True, http="open"),  # Django logs people in
    },
    authenticators=[DjangoSession()],
    trusted_proxies=settings.TRUSTED_PROXIES,
)
