"""Commands over texts and language models: attributes, generation, the store, vectors, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from legoray.cli_common import DEFAULT_TRACKING, HELP, DatasetFile, Tracking, console_of, say
from legoray.errors import InputError

text_app = typer.Typer(**HELP)

Template = Annotated[
    str | None, typer.Option(help="Such as '{title} ({category})'; all text attributes if absent.")
]
Length = Annotated[int, typer.Option(help="Tokens of a text at most.")]
Pooling = Annotated[str, typer.Option(help="mean, cls or last.")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, int8 or nf4.")]


@text_app.command()
def attributes(dataset: DatasetFile) -> None:
    """List what may be read of items and users: the data's own, and what was written later."""
    from legoray.data.attributescmd import print_attributes

    print_attributes(dataset, console_of(), say)


@text_app.command()
def augment(
    dataset: Annotated[
        Path | None, typer.Argument(help="A data set, such as datasets/mind_sample.yaml")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="A prompt's name (see --list), or a file of your own.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A causal language model; smollm2 if absent.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--as", help="The attribute's name, instead of the prompt's.")
    ] = None,
    attributes: Annotated[
        str | None, typer.Option(help="What {text} stands for, such as title,abstract.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Answers at once; kept together.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of sampling.")] = 1,
    temperature: Annotated[
        float, typer.Option(min=0, max=5, help="0 takes the likeliest word always.")
    ] = 0.0,
    precision: Annotated[
        str | None, typer.Option(help="float32 (default on a CPU) or bfloat16 (on a GPU).")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="A server of OpenAI's chat format, such as http://host:8000")
    ] = None,
    endpoint_model: Annotated[str | None, typer.Option(help="The server's model.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions to the server at once.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for the server's answer.")] = 120,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Set aside what was written otherwise, or has changed."),
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the prompts.")] = False,
) -> None:
    """Let a language model write an attribute of all items or users. Going on after a kill.

    A server's key is taken from LEGORAY_API_KEY or OPENAI_API_KEY.
    """
    from legoray.llm.generation.prompt import prompt_lines

    if listed:
        for line in prompt_lines():
            say(line)
        return
    if dataset is None or prompt is None:
        missing = "a data set, such as datasets/mind_sample.yaml" if dataset is None else "--prompt"
        raise InputError(f"give {missing}; `legoray augment --list` shows the prompts")
    from legoray.llm.generation.augment import Asked
    from legoray.llm.generation.augment import augment as run

    asked = Asked(
        dataset=dataset,
        prompt=prompt,
        model=model,
        name=name,
        attributes=tuple(word.strip() for word in (attributes or "").split(",") if word.strip()),
        limit=limit,
        batch=batch,
        seed=seed,
        temperature=temperature,
        precision=precision,
        endpoint=endpoint,
        endpoint_model=endpoint_model,
        concurrency=concurrency,
        timeout=timeout,
        overwrite=overwrite,
    )
    run(asked, console_of())


store_app = typer.Typer(help="What the shared caches hold, and making room in them.", **HELP)
text_app.add_typer(store_app, name="store")


@store_app.command("list")
def store_list() -> None:
    """List stored hidden states, vectors and codes, the least used first."""
    from legoray.config import home
    from legoray.data.shelfcmd import print_list

    print_list(home(), console_of())


@store_app.command("prune")
def store_prune(
    keys: Annotated[list[str] | None, typer.Argument(help="The beginning of keys.")] = None,
    keep: Annotated[
        str | None, typer.Option(help="Remove the least used until so much is left: 10GB.")
    ] = None,
    unused: Annotated[
        str | None, typer.Option(help="Remove what was not used for so long: 30d, 12h, 2w.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove stored states; what is needed again is computed again."""
    from legoray.config import home
    from legoray.data.shelfcmd import prune

    prune(home(), keys=keys or (), keep=keep, unused=unused, dry_run=dry_run, say=say)


@text_app.command()
def vectors(
    dataset: DatasetFile,
    output: Annotated[Path, typer.Option(help="A .safetensors file to write.")],
    model: Annotated[str, typer.Option(help="A language model of the catalogue.")] = "minilm",
    template: Template = None,
    length: Length = 64,
    pooling: Pooling = "mean",
    precision: Precision = "float32",
) -> None:
    """Write one vector per item, a language model's pooled hidden state, keyed by item."""
    from legoray.config import build
    from legoray.model.content.sources import PooledConfig
    from legoray.model.storedcmd import export_vectors

    given = {"template": template, "length": length, "pooling": pooling, "precision": precision}
    export_vectors(dataset, output, model=model, config=build(PooledConfig, given), say=say)


@text_app.command()
def codes(
    dataset: DatasetFile,
    output: Annotated[Path, typer.Option(help="A .parquet file to write.")],
    vectors: Annotated[Path | None, typer.Option(help="A file of one vector per item.")] = None,
    model: Annotated[str | None, typer.Option(help="A language model, instead.")] = None,
    levels: Annotated[int, typer.Option(min=1, help="Codes per item, coarse to fine.")] = 3,
    codes: Annotated[int, typer.Option(min=2, help="Different codes per level.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of the k-means.")] = 0,
    template: Template = None,
    length: Length = 64,
    pooling: Pooling = "mean",
    precision: Precision = "float32",
) -> None:
    """Write semantic ids: a few codes per item, by residual k-means of its vectors."""
    from legoray.config import build
    from legoray.model.content.sources import PooledConfig
    from legoray.model.storedcmd import export_codes

    given = {"template": template, "length": length, "pooling": pooling, "precision": precision}
    export_codes(
        dataset,
        output,
        vectors=vectors,
        model=model,
        config=build(PooledConfig, given),
        levels=levels,
        codes=codes,
        seed=seed,
        say=say,
    )


@text_app.command()
def export(
    model: Annotated[
        str, typer.Argument(help="A model folder, models:/name@champion, or a run's id.")
    ],
    folder: Annotated[Path, typer.Argument(help="Where to; it must not exist, or be empty.")],
    merge: Annotated[
        bool,
        typer.Option("--merge", help="The whole language model in float32, adapters merged."),
    ] = False,
    part: Annotated[
        str | None, typer.Option(help="Which one, in an operator that holds several.")
    ] = None,
    tracking: Tracking = DEFAULT_TRACKING,
) -> None:
    """Write a trained language model for other programs: PEFT adapters, or a merged model."""
    from legoray.zoo.export import export as run

    run(model, folder, merge=merge, part=part, tracking=tracking, say=say)
