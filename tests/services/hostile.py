"""Class names and a note that a page must show as text, although they look like markup."""

from pathlib import Path

from PIL import Image

from cnn.data import digits

SCRIPT = "document.title='owned';alert(1)"
CLASSES = (
    f'<img src=x onerror="{SCRIPT}">',
    f"<script>{SCRIPT}<script>",
    f"[press](javascript:{SCRIPT})",
    "**b** _i_ `c` ~~s~~ # h",
    "| a | b |",
    "www.evil.example a@evil.example",
    "\N{ZERO WIDTH JOINER}\N{ARABIC LETTER ALEF}abc\N{ZERO WIDTH SPACE}def",
    "w" * 200,
    "{{ 7*7 }} ${7*7} %s {x} $x^2$",
    "&lt;b&gt; &amp; '\"\\",
)
NOTE = (
    f'<img src=x onerror="{SCRIPT}"><script>{SCRIPT}</script> [press](javascript:{SCRIPT}) '
    "![p](http://evil.example/p.png) http://evil.example/x <http://evil.example> **b** | a |\n"
    "# heading\n- item\n[r]: http://evil.example\n\N{RIGHT-TO-LEFT OVERRIDE}END"
)


def write(folder: Path, n_per_class: int = 40) -> Path:
    """Write scanned digits as image files, each class and each file with a hostile name."""
    images, labels = digits.read()
    for label, name in enumerate(CLASSES):
        place = folder / name
        place.mkdir(parents=True)
        for number, image in enumerate(images[labels == label][:n_per_class]):
            Image.fromarray(image[..., 0]).save(place / f"{name[:150]} {number}.png")
    return folder
