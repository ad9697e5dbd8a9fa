"""Django's pages: log in, log out, and the room."""

from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path
from django.views.generic import TemplateView

urlpatterns = [
    path("", login_required(TemplateView.as_view(template_name="room.html"), login_url="/login")),
    path("login", LoginView.as_view()),
    path("logout", LogoutView.as_view(next_page="/login")),
]
