"""A dataset's folder: its manifest, its planned source, its tables, and the lock of the run that writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from mtadiffusion.data.annotation_files import Known, gather, known_facts
from mtadiffusion.data.files import sweep, write_json
from mtadiffusion.data.sources import Spec, plan
from mtadiffusion.data.tables import Table, shard_name
from mtadiffusion.errors import UserError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a dataset says of itself."""

    source: str
    """Path or URL that it was made from."""

    shards: int
    """Number of shards."""

    shard_size: int
    """Images a shard that were asked for; a tar of the source stays one shard."""

    annotations: tuple[str, ...] = ()
    """Files that it took the source's own annotations from."""

    tables: dict[str, str] = field(default_factory=dict)
    """Name -> fingerprint of the tables that the last run made or reused."""

    format_version: int = FORMAT_VERSION
    """Rises when older code cannot read the layout any more."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An annotated dataset, or one that is being annotated."""

    root: Path
    """Its folder."""

    manifest: Manifest
    """As of when it was opened."""

    @classmethod
    def open(cls, root: Path) -> Dataset:
        """Read a dataset's manifest. Raises UserError where there is none that can be read."""
        path = root / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            remedy = "make one with `mta annotate SOURCE --out DATASET`"
            raise UserError("DATASET", f"must be a folder with a {MANIFEST}", str(root), remedy) from None
        except ValueError as error:
            raise UserError("DATASET", f"has a damaged {MANIFEST}", str(path), str(error)) from None
        if values.get("format_version") != FORMAT_VERSION:
            rule = f"must have format version {FORMAT_VERSION}"
            raise UserError("DATASET", rule, values.get("format_version"), "another mtadiffusion wrote it")
        values["annotations"] = tuple(values.get("annotations", ()))
        return cls(root=root, manifest=Manifest(**values))

    @classmethod
    def open_or_plan(
        cls, root: Path, source: str, shard_size: int, annotations: Sequence[Path] = ()
    ) -> Dataset:
        """Open the dataset in `root`, or plan a new one over `source`; the manifest is written last.

        Args:
            root: the dataset's folder.
            source: as `data.sources.plan` takes it.
            shard_size: images a shard that are wanted.
            annotations: files of `data.annotation_files`; an open dataset has its own, or the same are named.
        """
        if (root / MANIFEST).exists():
            dataset = cls.open(root)
            dataset._check_made_of(source, annotations)
            return dataset
        specs = plan(source, shard_size)
        for shard, spec in enumerate(specs):
            write_json(_spec_path(root, shard), spec)
        if annotations:
            gather(annotations, known_path(root))
        manifest = Manifest(
            source=source,
            shards=len(specs),
            shard_size=shard_size,
            annotations=tuple(str(path) for path in annotations),
        )
        dataset = cls(root=root, manifest=manifest)
        dataset._write_manifest()
        return dataset

    def _check_made_of(self, source: str, annotations: Sequence[Path]) -> None:
        remedy = "choose another folder, or name the same"
        if self.manifest.source != source:
            rule = f"already holds a dataset of {self.manifest.source}"
            raise UserError("--out", rule, str(self.root), remedy)
        if annotations and tuple(map(str, annotations)) != self.manifest.annotations:
            rule = f"has its annotations from {', '.join(self.manifest.annotations) or 'no file'}"
            raise UserError("--out", rule, str(self.root), remedy)

    def known_facts(self) -> AbstractContextManager[Known]:
        """Look up what the annotation files say of images; see `annotation_files.known_facts`."""
        if not self.manifest.annotations:
            return nullcontext(lambda _: {})
        return known_facts(known_path(self.root))

    def spec(self, shard: int) -> Spec:
        """What the shard is read from."""
        return json.loads(_spec_path(self.root, shard).read_text(encoding="utf-8"))

    def resolved(self, url: str) -> str:
        """A url of the index: absolute, or relative to the dataset where it packed the images itself."""
        return url if "://" in url or Path(url).is_absolute() else str(self.root / url)

    def table(self, name: str) -> Table:
        """The table in use of that name. Raises UserError where no run has made one."""
        fingerprint = self.manifest.tables.get(name)
        if fingerprint is None:
            have = ", ".join(sorted(self.manifest.tables)) or "none"
            raise UserError("DATASET", f"must have a table {name}", f"tables: {have}", "annotate it first")
        return Table(root=self.root, name=name, fingerprint=fingerprint)

    def using(self, table: Table) -> Dataset:
        """The dataset with `table` as the one in use of its name, noted in the manifest."""
        tables = self.manifest.tables | {table.name: table.fingerprint}
        dataset = replace(self, manifest=replace(self.manifest, tables=tables))
        if tables != self.manifest.tables:
            dataset._write_manifest()
        return dataset

    def _write_manifest(self) -> None:
        write_json(self.root / MANIFEST, asdict(self.manifest))


def known_path(root: Path) -> Path:
    """Where the content of annotation files lies."""
    return root / "source" / "annotations.sqlite"


def _spec_path(root: Path, shard: int) -> Path:
    return root / "source" / f"{shard_name(shard)}.json"


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Be the one run that writes in `root`; what killed runs left unfinished is removed first.

    Raises:
        UserError: another run writes there, or the folder cannot be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock", timeout=0):
            sweep(root)
            yield
    except Timeout:
        remedy = "wait for it, or stop it"
        raise UserError("--out", "is being written by another run", str(root), remedy) from None
