"""How much disk a run needs: what its recipe says, and the frames of its photos, which grow with the shop."""

from compress.data import open_dataset
from compress.recipe import Recipe


def disk_needed(recipe: Recipe) -> int:
    """MB (1e6 bytes). Of a data set that counts its images, each is kept at every edge that a step sees it at, see
    compress/prepared.py. Raises what reading the data set's lists raises.
    """
    dataset = open_dataset(recipe.dataset.name, recipe.dataset.fields)
    count: int = getattr(dataset, "count", lambda: 0)()
    size, augment, edges = 0, None, set()
    for step in recipe.steps:  # a step without a size or augment goes on with those of the step before
        size = getattr(step, "size", 0) or size
        augment = getattr(step, "augment", augment)
        edges |= {size} | ({augment.edge(size)} if augment is not None else set())
    return recipe.disk_mb + round(count * 3 * sum(edge**2 for edge in edges) / 1e6)
