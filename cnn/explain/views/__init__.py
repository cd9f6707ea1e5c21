"""The views shown beside a mined patch: one file each, registered here in VIEWS."""

from cnn.explain.views import projections
from cnn.explain.views.base import View

VIEWS: tuple[View, ...] = (projections.VIEW,)
