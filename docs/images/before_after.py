"""The README's picture: one arm above, another below, the same depth maps and noise.

python docs/images/before_after.py RUN/data/generated/{unconstrained,guided}/0/images docs/images/before_after.jpg
"""

import argparse
from pathlib import Path

from PIL import Image

IDS = ("condition-000000", "condition-000199", "condition-000399")
WIDTH = 200  # columns shown of 320: the right-hand ones, where the nearer walls are
SCALE = 3
GAP = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("above", type=Path, help="folder of pictures")
    parser.add_argument("below", type=Path, help="folder of pictures of the same names")
    parser.add_argument("out", type=Path, help="JPEG to write")
    parser.add_argument("--ids", nargs="+", default=IDS, help="names of the pictures, side by side")
    options = parser.parse_args()
    rows = [[_cut(folder / f"{name}.png") for name in options.ids] for folder in (options.above, options.below)]
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (len(options.ids) * (width + GAP) - GAP, 2 * height + GAP), "white")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (column * (width + GAP), row * (height + GAP)))
    sheet.save(options.out, quality=85)


def _cut(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        cut = picture.convert("RGB").crop((picture.width - WIDTH, 0, picture.width, picture.height))
    return cut.resize((cut.width * SCALE, cut.height * SCALE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
