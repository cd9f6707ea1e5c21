"""Names of data sets for people.

They stand apart from the sources, so that a report is made again if its title is reworded, but no
data set is loaded and no model trained again.
"""

_TITLES = {
    "digits": "digits, 1,797 scans that ship with scikit-learn",
    "fashion-mnist": "Fashion-MNIST, articles of clothing",
    "folder": "a folder of your own images",
    "kmnist": "Kuzushiji-MNIST, cursive hiragana",
    "mnist": "MNIST, handwritten digits",
}


def of(name: str) -> str:
    """Return the title of the data set with this name; without one, its name."""
    return _TITLES.get(name, name)
