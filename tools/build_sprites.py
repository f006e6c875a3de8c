"""Build the sprite pack `sprites.zip` from the npm packages of four open emoji sets.

    npm install @lobehub/fluent-emoji-3d @iconify-json/fluent-emoji-flat
    npm install @iconify-json/noto @iconify-json/twemoji
    python tools/build_sprites.py node_modules --sheet sprites.png

Every object of `OBJECTS` exists in all four styles. A sprite is cut to its visible pixels, scaled so that
its longer side is `SPRITE_SIDE` pixels, and stored as WebP with alpha. Needs the extra `assets`.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

SPRITE_SIDE = 128
RENDER_SIDE = 256
OUT = Path(__file__).parent.parent / "src/mtadiffusion/stickers/assets/sprites.zip"

STYLES = {
    "fluent-3d": "@lobehub/fluent-emoji-3d",
    "fluent-flat": "@iconify-json/fluent-emoji-flat",
    "noto": "@iconify-json/noto",
    "twemoji": "@iconify-json/twemoji",
}

OBJECTS = {
    "apple": "1f34e", "banana": "1f34c", "watermelon": "1f349", "strawberry": "1f353", "eggplant": "1f346",
    "pineapple": "1f34d", "mushroom": "1f344", "broccoli": "1f966", "avocado": "1f951", "grapes": "1f347",
    "burger": "1f354", "pizza": "1f355", "fries": "1f35f", "popcorn": "1f37f", "donut": "1f369",
    "cupcake": "1f9c1", "cheese": "1f9c0", "beer mug": "1f37a", "cat": "1f431", "dog": "1f436",
    "fox": "1f98a", "panda": "1f43c", "frog": "1f438", "pig": "1f437", "lion": "1f981", "penguin": "1f427",
    "owl": "1f989", "fish": "1f41f", "whale": "1f433", "octopus": "1f419", "crab": "1f980",
    "ladybug": "1f41e", "butterfly": "1f98b", "car": "1f697", "bus": "1f68c", "rocket": "1f680",
    "house": "1f3e0", "castle": "1f3f0", "tree": "1f333", "cactus": "1f335", "sunflower": "1f33b",
    "tulip": "1f337", "maple leaf": "1f341", "heart": "2764", "star": "2b50", "gift": "1f381",
    "crown": "1f451", "hat": "1f3a9", "shirt": "1f455", "dress": "1f457", "backpack": "1f392",
    "umbrella": "2602", "bell": "1f514", "alarm clock": "23f0", "soccer ball": "26bd",
    "basketball": "1f3c0", "robot": "1f916", "pumpkin": "1f383", "trophy": "1f3c6", "gem": "1f48e",
}  # fmt: skip


def sprite_pixels(packages: Path, style: str, code: str) -> np.ndarray:
    """uint8 (SPRITE_SIDE or less on one axis, 3 + alpha), straight alpha, cut to the visible pixels."""
    image = _rendered(packages / STYLES[style], code).convert("RGBA")
    alpha = np.asarray(image)[..., 3]
    rows, columns = np.where(alpha.max(1) > 16)[0], np.where(alpha.max(0) > 16)[0]
    image = image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    scale = SPRITE_SIDE / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    premultiplied = image.convert("RGBa").resize(size, Image.Resampling.LANCZOS)
    return np.asarray(premultiplied.convert("RGBA"))


def _rendered(package: Path, code: str) -> Image.Image:
    candidates = [code, f"{code}-fe0f"]
    if (package / "assets").is_dir():
        path = next(p for c in candidates if (p := package / "assets" / f"{c}.webp").exists())
        return Image.open(path)
    names = json.loads((package / "chars.json").read_text())
    icons = json.loads((package / "icons.json").read_text())
    name = next(names[c] for c in candidates if c in names)
    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
    icon = icons["icons"][name]
    width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=RENDER_SIDE, height=RENDER_SIDE)
    return Image.open(io.BytesIO(bytes(png)))


def sprites(packages: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """(label, style, pixels) of every sprite, in a fixed order."""
    for label, code in OBJECTS.items():
        for style in STYLES:
            yield label, style, sprite_pixels(packages, style, code)


def write_pack(pack: list[tuple[str, str, np.ndarray]], out: Path) -> None:
    """Write the zip: `STYLE/LABEL.webp`, stored without dates so that equal sprites give equal bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for label, style, pixels in pack:
            encoded = io.BytesIO()
            Image.fromarray(pixels).save(encoded, "WEBP", quality=86, alpha_quality=90, method=6)
            archive.writestr(zipfile.ZipInfo(f"{style}/{label}.webp"), encoded.getvalue())


def contact_sheet(pack: list[tuple[str, str, np.ndarray]], cell: int = 72, groups: int = 5) -> Image.Image:
    """All sprites: one object a cell of four styles side by side."""
    styles = list(STYLES)
    rows = math.ceil(len(pack) / len(styles) / groups)
    sheet = Image.new("RGB", (cell * len(styles) * groups, cell * rows), "#e8e8e8")
    for i, (_, _, pixels) in enumerate(pack):
        group, style = divmod(i, len(styles))
        sprite = Image.fromarray(pixels)
        sprite.thumbnail((cell - 6, cell - 6))
        x = (group % groups * len(styles) + style) * cell
        sheet.paste(sprite, (x + 3, group // groups * cell + 3), sprite)
    return sheet


def main() -> None:
    """Parse, build, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("packages", type=Path, help="the node_modules folder that holds the four packages")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet")
    arguments = parser.parse_args()
    pack = list(sprites(arguments.packages))
    write_pack(pack, arguments.out)
    if arguments.sheet:
        contact_sheet(pack).save(arguments.sheet)
    print(f"{len(pack)} sprites, {arguments.out.stat().st_size / 1e6:.2f} MB: {arguments.out}")


if __name__ == "__main__":
    main()
