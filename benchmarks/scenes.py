"""How many scenes one core draws in a second, of each world, and what share of it compression takes.

python benchmarks/scenes.py [count]
"""

from __future__ import annotations

import sys
import time

from data_engine.scenes.scene import make_scene
from data_engine.scenes.world import WORLDS


def main(count: int) -> None:
    for world in WORLDS.values():
        make_scene(0, 0, world=world)  # fonts, shapes and the noise tile are made once
        start = time.process_time()
        scenes = [make_scene(0, index, world=world) for index in range(count)]
        drawn = time.process_time()
        size = sum(len(scene.jpeg()) for scene in scenes)
        packed = time.process_time()
        print(
            f"{world.name:<12} {count / (drawn - start):6.0f} scenes a second of one core; with JPEG "
            f"{count / (packed - start):6.0f}, {size / count / 1024:.1f} KiB each"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
