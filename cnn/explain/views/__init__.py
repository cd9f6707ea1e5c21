"""Ways of showing a mined patch beside its pixels: a file for each, and a line here."""

from cnn.explain.views import projections
from cnn.explain.views.base import View

VIEWS: tuple[View, ...] = (projections.VIEW,)
