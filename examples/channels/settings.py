"""Django's settings: sessions in the database, cookies that only this host over https gets."""

import os
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).parent
ORIGINS = os.environ.get("APP_ORIGINS", "https://localhost:8443").split()
TRUSTED_PROXIES = os.environ.get("APP_TRUSTED_PROXIES", "").split()

SECRET_KEY = os.environ["APP_SECRET_KEY"]
ALLOWED_HOSTS = [urlsplit(origin).hostname for origin in ORIGINS]
ROOT_URLCONF = "urls"
LOGIN_REDIRECT_URL = "/"
SESSION_COOKIE_NAME = "__Host-sessionid"
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_NAME = "__Host-csrftoken"
CSRF_COOKIE_SECURE = True
USE_TZ = True
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("APP_DATABASE", HERE / "db.sqlite3")}
}
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}  # one process; else channels_redis
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "channels"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [HERE / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ]
        },
    }
]
