"""What a bundle says of itself, in lines for people: `python -m sdk inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdk.bundle import Bundle


def describe(bundle: Bundle) -> Iterator[str]:
    """Lines of text. They hold what the bundle brings as it is: escape them before they reach a terminal."""
    manifest, image = bundle.manifest, bundle.manifest.image
    yield f"{manifest.name}   format {manifest.format}   {bundle.size / 1e6:.1f} MB   {bundle.hash[:16]}"
    yield f"tasks     {', '.join(manifest.tasks)}"
    yield f"licence   {manifest.licences.package}; made from: {_pairs(manifest.licences.upstream)}"
    if manifest.card:
        yield f"card      {manifest.card}, {manifest.files[manifest.card].bytes} bytes; run: python -m sdk card BUNDLE"
    yield f"frames    {image.size} x {image.size}, {image.resize}, crop {image.crop}"
    if manifest.text:
        yield f"texts     {manifest.text.length} tokens"
    if manifest.labels:
        yield f"labels    {len(manifest.labels.items)}: {', '.join(item.label for item in manifest.labels.items)}"
        groups = {item.group: None for item in manifest.labels.items if item.group}
        if groups:
            yield f"groups    {len(groups)}: {', '.join(groups)}"
    if manifest.unknown_threshold is not None:
        yield f"unknown   none of these, where the best cosine is below {manifest.unknown_threshold:g}"
    if manifest.fusion:
        yield f"answers   {len(manifest.fusion.answers)}: {', '.join(manifest.fusion.answers)}"
    yield from _graphs(bundle)
    for metric, figures in manifest.quality.items():
        for who, f in figures.items():
            yield f"quality   {metric} {who}: {f.value:.4g} [{f.low:.4g}, {f.high:.4g}] n={f.n}"
    yield f"made      {_pairs(manifest.provenance)}"


def _graphs(bundle: Bundle) -> Iterator[str]:
    for tower, variants in bundle.manifest.graphs.items():
        for variant, graph in variants.items():
            megabytes = bundle.manifest.files[graph.file].bytes / 1e6
            yield (
                f"graph     {tower:<7}{variant:<6}{megabytes:8.2f} MB {graph.params / 1e6:7.2f} M params "
                f"{graph.macs / 1e6:9.1f} M macs   for {', '.join(graph.families)}"
            )


def _pairs(table: Mapping[str, str]) -> str:
    return ", ".join(f"{k} {v}" for k, v in table.items())
