"""The library behind filterscope: plain Python that does not depend on Prefect."""
