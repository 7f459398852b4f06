"""Evaluate models: image to image, k-NN, zero-shot, text to image and image to text, on one embedding per image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mcip.core.choices import Decode, Precision
from mcip.core.errors import ConfigError
from mcip.core.parameters import check_choices
from mcip.core.processes import processes
from mcip.evaluation.presets import PresetName
from mcip.stages.inputs import ColumnsInput, DataInput, ModelInput

if TYPE_CHECKING:
    from mcip.evaluation.task_data import Sources
    from mcip.reporting.evaluation import Evaluation

    # NAME=MODEL or just MODEL, or models by name.
    ModelsInput: TypeAlias = Sequence[ModelInput] | Mapping[str, ModelInput]
else:
    ModelsInput = list[str]


def evaluate(
    model: ModelsInput,
    out: Path,
    *,
    data: DataInput | None = None,
    suite: str = "own",
    preset: PresetName = "paper",
    split: str | None = None,
    index_split: str | None = None,
    index_data: DataInput | None = None,
    columns: ColumnsInput | None = None,
    allow_counts: bool = False,
    embedding: list[str] | None = None,
    decode: Decode = "exact",
    batch_size: int = 256,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
    export_csv: Path | None = None,
    export_jsonl: Path | None = None,
) -> Evaluation:
    """Measure models on a suite of tasks and write one results file per model and suite.

    Embeddings are kept in `out`/embeddings and results as soon as they are there: a second run measures only what is
    missing, and what was replaced at its place. Benchmarks that are not in `data` are named and left out. Several
    processes, started by torchrun or accelerate launch, share the embedding and the tasks.

    Args:
        model: Models as NAME=MODEL, or just MODEL; MODEL is what `mcip.load` takes. In Python a mapping of names to
            models, too, which may be loaded.
        out: The folder of the results, one JSON per model and suite.
        data: The table to measure on (suite "own"), or the folder with a folder for each benchmark; docs/evaluation.md
            shows the layouts.
        suite: "own", all that the table allows; "table1", the 14 columns of the paper; "extended", all benchmarks;
            "quick", a seeded subsample of table1; the name of one benchmark; or a YAML file with a list of tasks.
        preset: The protocol of the benchmarks: the paper's, or the standard one of each.
        split: For "own": the rows that are queries and gallery.
        index_split: For "own": the rows that vote in k-NN.
        index_data: For "own": the table of the rows that vote in k-NN; that of `data` if not given.
        columns: For "own": which of the tables' columns are image, label, ..., for example
            image=path,label=category.
        allow_counts: Measure benchmarks that have not as many images as the official release too; the results say so.
        embedding: How an index would store the gallery's embeddings: float32, int8 or binary, dim=256 for 256 principal
            components, first=256 for the first 256 dimensions, or both, such as dim=256,int8. Given several times, each
            model is measured in each way, under its name with the way behind it. Queries are shortened, not rounded.
        decode: "exact" reads images to open_clip's pixels, to the bit; "fast" reads JPEGs several times faster, to
            almost the same.
        batch_size: Images or captions per forward pass.
        workers: Processes that decode images; 0 decodes in this one.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of images that may be unreadable before it stops with an error.
        export_csv: Write all results to this file, too, as CSV with the columns of CLIP_benchmark.
        export_jsonl: Write all results to this file, too, as JSON lines that `datasets` reads: one per metric.

    Returns:
        The results, in the order of the models: a sequence with `paths`, `to_pandas()`, and a table when it is shown.

    Raises:
        ConfigError: The suite cannot be read, two models have the same name, or a name cannot be that of a file.
        DataError: A benchmark is not the official release.
        ArtefactError: Results on other data, or of another model, are there under the same name.

    Example:
        >>> import mcip
        >>> evaluation = mcip.evaluate(["base=toyshop"], "runs/results", data="test.parquet")  # doctest: +SKIP
        >>> evaluation[0].measured["i2i"].percent  # doctest: +SKIP
        17.31
    """
    check_choices(evaluate, locals())
    from mcip.core.files import atomic_write
    from mcip.data.column_names import columns_of, write_columns
    from mcip.embeddings.compact import Compact
    from mcip.evaluation.results_file import check_model_name
    from mcip.evaluation.several import measure_models
    from mcip.evaluation.suites import find_suite
    from mcip.evaluation.task_data import Sources
    from mcip.reporting.evaluation import Evaluation
    from mcip.reporting.exchange import clip_benchmark_csv, json_lines

    named = _by_name(model)
    for name in named:
        check_model_name(name)
    compacts = list(dict.fromkeys(map(Compact.parse, embedding or ["float32"])))
    sources = Sources()
    named_columns = write_columns(columns_of(columns)) or None
    place, index_place = (_place(table, sources, named_columns) for table in (data, index_data))
    found = find_suite(suite, place, preset, split, index_split, index_place, sources, named_columns)
    paths = measure_models(
        named, found, Path(out), sources=sources, allow_counts=allow_counts, decode=decode, batch_size=batch_size,
        workers=workers, device=device, precision=precision, max_unreadable=max_unreadable, embeddings=compacts,
    )  # fmt: skip
    evaluation = Evaluation.read(paths)
    for file, write in ((export_csv, clip_benchmark_csv), (export_jsonl, json_lines)):
        if file is not None and processes().first:
            with atomic_write(file) as temporary:
                temporary.write_text(write(evaluation.results), encoding="utf-8")
    return evaluation


def _by_name(models: ModelsInput) -> dict[str, ModelInput]:
    """The models by their names.

    Raises:
        ConfigError: There are none, or two have the same name.
    """
    if isinstance(models, str | os.PathLike):
        models = [models]
    pairs = list(models.items()) if isinstance(models, Mapping) else [_named(entry) for entry in models]
    if not pairs:
        raise ConfigError("There is no model to evaluate: pass --model NAME=MODEL, once for each.")
    names = [name for name, _ in pairs]
    # Some file systems take "a.json" and "A.json" for one file.
    if len({name.casefold() for name in names}) < len(names):
        raise ConfigError(f"Two models have the same name: {', '.join(names)}. Name them: --model NAME=MODEL.")
    return dict(pairs)


def _named(entry: ModelInput) -> tuple[str, ModelInput]:
    """A model and its name: as given, else that of its folder, or of what it was loaded from."""
    name, separator, source = entry.partition("=") if isinstance(entry, str) else ("", "", "")
    if separator and not (isinstance(entry, str) and Path(entry).exists()):
        return name, source
    place = str(getattr(entry, "source", entry))
    folder = Path(place)
    if folder.is_dir():
        return (folder.resolve().parent if folder.name == "model" else folder.resolve()).name, entry
    return place.replace("/", "-").replace(":", "-"), entry


def _place(data: DataInput | None, sources: Sources, columns: str | None) -> str | None:
    """Where data are; tables that are no place are put into the sources under their name."""
    from mcip.data import Table, read_table

    if data is None or isinstance(data, str | os.PathLike):
        return None if data is None else os.fspath(data)
    table = data if isinstance(data, Table) and columns is None else read_table(data, columns=columns)
    if sources.tables.get(table.name, table) is not table:
        table = replace(table, name=f"{table.name} (index)")
    sources.tables[table.name] = table
    return table.name
