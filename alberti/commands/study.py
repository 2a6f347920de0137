"""``alberti study``: human trials, from pictures to a page of results."""

from pathlib import Path
from typing import Annotated, Any

import typer

from alberti.errors import ConfigError
from alberti.extras import require_extra

study = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Ask people which of two pictures they prefer.")


@study.callback()
def _needs() -> None:
    require_extra("study", "alberti study")


Folder = Annotated[Path, typer.Argument(help="The study folder, as `create` makes it.")]


@study.command()
def create(
    out: Annotated[Path, typer.Argument(help="The study folder to make.")],
    arms: Annotated[list[str] | None, typer.Argument(metavar="[NAME=FOLDER]...", help="Arms: pictures, or data sets.")] = None,
    run: Annotated[Path | None, typer.Option(help="A finished run's folder: its arms and renders are taken.")] = None,
    only: Annotated[str | None, typer.Option(help="With --run: only these arms, separated by commas.")] = None,
    compare: Annotated[
        list[str] | None, typer.Option(metavar="ARM:OTHER", help="A comparison, may be repeated; default: each with each.")
    ] = None,
    straight: Annotated[Path | None, typer.Option(help="Renders or photographs to make catch pairs of.")] = None,
    title: Annotated[str, typer.Option(help="Title of the raters' window.")] = "Which picture?",
    blocks: Annotated[str, typer.Option(help="Questions in their order: realism, lines.")] = "realism,lines",
    pairs: Annotated[int | None, typer.Option(min=1, help="Pairs of each comparison that a rater sees per block.")] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="Use only this number of pictures, drawn by the seed.")] = None,
    only_common: Annotated[bool, typer.Option("--only-common", help="Leave out pictures that an arm lacks.")] = False,
    size: Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Bring all pictures to this size.")] = None,
    catch: Annotated[int, typer.Option(min=0, help="Catch pairs per block: a straight picture against the same one bent.")] = 5,
    repeats: Annotated[int, typer.Option(min=0, help="Pairs per block that come again with sides swapped.")] = 4,
    practice: Annotated[int, typer.Option(min=0, help="Practice pairs per block.")] = 2,
    catch_bend: Annotated[
        float, typer.Option(min=0.001, max=0.2, help="Bend of catch pairs, rms, as a share of the size.")
    ] = 0.025,
    min_catch: Annotated[float, typer.Option(min=0, max=1, help="Rule: share of catch pairs to get right.")] = 0.8,
    min_repeat: Annotated[float, typer.Option(min=0, max=1, help="Rule: share of repeats to answer alike.")] = 0.25,
    min_ms: Annotated[float, typer.Option(min=0, help="Rule: median response time in milliseconds.")] = 400,
    finished_only: Annotated[bool, typer.Option("--finished-only", help="Rule: only raters who answered all pairs.")] = False,
    completion_code: Annotated[str | None, typer.Option(help="One code for all (Prolific); default: each rater's own.")] = None,
    completion_url: Annotated[str | None, typer.Option(help="Where raters go at the end, https://...")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    plan: Annotated[bool, typer.Option("--plan", help="Only simulate how wide the intervals will be; makes nothing.")] = False,
    preference: Annotated[float, typer.Option(min=0.01, max=0.99, help="With --plan: the share to find.")] = 0.6,
    raters: Annotated[str, typer.Option(help="With --plan: numbers of raters to try.")] = "10,20,40,80",
    careless: Annotated[float, typer.Option(min=0, max=1, help="With --plan: share of raters who answer at random.")] = 0.1,
) -> None:
    """Make a study from two or more folders of pictures (NAME=FOLDER), or from a finished run (--run).

    Edit texts/ at any time. Edit the questions and rules in study.json only before the first rater begins.
    """
    from alberti.study.create import Options, create_study, pictures_to_show
    from alberti.study.design import Rules

    folders, renders = _arms(arms or [], run, only)
    options = Options(
        title=title,
        seed=seed,
        comparisons=tuple(_pair(text) for text in compare or []),
        pictures=pictures,
        only_common=only_common,
        size=_size(size),
        blocks=tuple(blocks.split(",")),
        per_comparison=pairs,
        catch=catch,
        repeats=repeats,
        practice=practice,
        catch_bend=catch_bend,
        rules=Rules(min_catch_share=min_catch, min_repeat_share=min_repeat, min_median_ms=min_ms, finished_only=finished_only),
        completion_code=completion_code,
        completion_url=completion_url,
    )
    if plan:
        _, names = pictures_to_show(folders, options)
        _print_plan(list(folders), options, len(names), preference, _numbers(raters), careless)
        return
    made = create_study(out, folders, straight or renders, options)
    print(f"{out}: {len(made.names)} pictures of {len(made.arms)} arms, {len(made.comparisons)} comparisons")
    print(f"  {made.trials} pairs a rater, {len(made.blocks)} blocks; texts to edit: {out}/texts")
    print(f"next: alberti study serve {out}")


@study.command()
def serve(
    folder: Folder,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is for this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8642,
    public_url: Annotated[
        str | None, typer.Option(help="The address that raters type, if it is another one, such as a proxy's.")
    ] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="Trust the X-Forwarded-* headers of a proxy on this machine.")
    ] = False,
    rate: Annotated[float, typer.Option(min=1, help="Requests per second allowed from one address.")] = 200,
    begins: Annotated[float, typer.Option(min=1, help="New raters per minute allowed from one address.")] = 60,
) -> None:
    """Show the study to raters on a web page. Answers go to answers.sqlite. After Ctrl-C the same command goes on."""
    from alberti.study.serve import serve as serve_study

    serve_study(folder, host, port, public_url=public_url, behind_proxy=behind_proxy, rate=rate, begins=begins)


@study.command()
def analyse(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; default: results/ of the study.")] = None,
    proxies: Annotated[list[Path] | None, typer.Option(help="Tables of `alberti study proxies` to show too.")] = None,
) -> None:
    """Analyse the answers: preferences with intervals, exclusions, agreement, response times and side bias.

    Writes JSON, CSV and a page."""
    from alberti.study.results import write_results

    results = write_results(folder, out or folder / "results", proxies=proxies or [])
    _print_results(results)
    print(
        f"{folder}/answers.jsonl; {out or folder / 'results'}/index.html, results.json, comparisons.csv, raters.csv, pairs.csv"
    )


@study.command()
def status(folder: Folder) -> None:
    """Show how many raters began and finished, with their platform's ids, to pay them."""
    from alberti.study.design import Study
    from alberti.study.store import Store

    store = Store(folder, Study.open(folder))
    counts = store.counts()
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    print("rater,platform,external_id,code,finished,withdrawn")
    for person in store.people():
        print(
            ",".join(str(_cell(person[key])) for key in ("number", "platform", "external_id", "code", "finished", "withdrawn"))
        )


@study.command("export")
def export_study(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    label_studio: Annotated[bool, typer.Option("--label-studio", help="Tasks and interface for Label Studio.")] = False,
    raters: Annotated[int, typer.Option(min=1, help="Number of series of pairs: one per rater.")] = 100,
    post: Annotated[
        str | None, typer.Option(help="Address that takes the answers by POST; default: raters send a file.")
    ] = None,
    image_prefix: Annotated[str, typer.Option(help="With --label-studio: what stands before a picture's file name.")] = (
        "/data/local-files/?d=pictures/"
    ),
) -> None:
    """Write the study as a static web page for a host without Python, or as tasks for Label Studio."""
    from alberti.study.label_studio import export_tasks
    from alberti.study.static_export import export_page

    count = export_tasks(folder, out, raters, image_prefix) if label_studio else export_page(folder, out, raters, post)
    print(f"{out}: series for {count} raters")


@study.command("import")
def import_answers(
    folder: Folder,
    files: Annotated[list[Path], typer.Argument(help="Answers: an exported page's files, or Label Studio's JSON export.")],
) -> None:
    """Take in answers that were collected elsewhere: check them against the study and keep them in imported/."""
    from alberti.study.importing import import_files

    for path, count in import_files(folder, files).items():
        print(f"{path}: {count} answers")


@study.command()
def proxies(
    out: Annotated[Path, typer.Argument(help="The JSON file to write. A .csv goes beside it.")],
    arms: Annotated[list[str] | None, typer.Argument(metavar="[NAME=FOLDER]...", help="Arms: pictures, or data sets.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model's folder or hub id, such as yuvalkirstain/PickScore_v1.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A finished run's folder: its arms and renders are taken.")] = None,
    only: Annotated[str | None, typer.Option(help="With --run: only these arms, separated by commas.")] = None,
    straight: Annotated[Path | None, typer.Option(help="Straight pictures, bent to check what the models notice.")] = None,
    prompt: Annotated[str, typer.Option(help="For pictures that have no caption.")] = "a realistic photo of a street",
    processor: Annotated[str | None, typer.Option(help="Where the processor is, if not with the model.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: a GPU if there is one.")] = None,
) -> None:
    """Let image-text and preference models choose instead of people, and check whether they notice bent pictures."""
    from alberti.study.proxies import score_proxies

    folders, renders = _arms(arms or [], run, only)
    if not model:
        raise ConfigError("--model: name at least one, a folder or a hub id")
    bendable = straight or renders
    if bendable is None:
        raise ConfigError("--straight: needed to check whether the models notice bent pictures (renders or photographs)")
    rows = score_proxies(folders, bendable, model, out, prompt=prompt, processor=processor, device=device)
    for line in rows:
        print(line)
    print(f"{out}, {out.with_suffix('.csv')}")


def _arms(arms: list[str], run: Path | None, only: str | None) -> tuple[dict[str, Path], Path | None]:
    """Arm -> folder, and the run's renders."""
    from alberti.study.create import run_sources

    folders: dict[str, Path] = {}
    renders = None
    if run is not None:
        folders, renders = run_sources(run)
        wanted = only.split(",") if only else list(folders)
        if missing := [name for name in wanted if name not in folders]:
            raise ConfigError(f"--only {only}: no arm {missing[0]!r} in {run}; it has {', '.join(folders)}")
        folders = {name: folders[name] for name in wanted}
    for text in arms:
        name, _, folder = text.rpartition("=")
        path = Path(folder)
        name = name or path.name
        if name in folders:
            raise ConfigError(f"{text}: there is an arm {name!r} already; name arms apart with NAME=FOLDER")
        folders[name] = path
    if len(folders) < 2:
        raise ConfigError("at least two arms are needed: NAME=FOLDER NAME=FOLDER, or --run with the folder of a finished run")
    return folders, renders


def _pair(text: str) -> tuple[str, str]:
    first, colon, second = text.partition(":")
    if not colon or not first or not second:
        raise ConfigError(f"--compare {text}: expected ARM:OTHER")
    return first, second


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ConfigError(f"--size {text}: expected WIDTHxHEIGHT in pixels, such as 512x512")
    return int(width), int(height)


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 2:
        raise ConfigError(f"--raters {text}: expected whole numbers of at least 2, separated by commas")
    return numbers


def _print_plan(arms: list[str], options: Any, pictures: int, preference: float, raters: list[int], careless: float) -> None:
    from alberti.study.plan import plan_arms

    print(f"preference {preference:g}, {careless:.0%} careless raters, {pictures} pictures, by simulation")
    print("raters  pairs of a comparison  pairs in all  95 % interval  excludes one half in")
    for row in plan_arms(arms, options, pictures, raters, preference, careless):
        print(
            f"{row['raters']:<7} {row['pairs']:<22} {row['pairs_in_all']:<13} "
            f"± {100 * row['half_width']:<4.1f} points  {row['decided']:.0%} of studies"
        )


def _print_results(results: dict[str, Any]) -> None:
    raters = results["raters"]
    print(f"{raters['counted']} of {raters['all']} raters counted, {results['answers']['counted']} answers")
    for block in results["blocks"].values():
        print(block["question"])
        for row in block["comparisons"]:
            found = row["clustered"]
            text = "no answers" if found is None else f"{found['share']:.1%} ({found['low']:.1%} to {found['high']:.1%})"
            print(f"  {row['arm']} over {row['other']:<16} {text}, n = {row['n']}")
    print(f"published: {results['published_share']:.1%} of trials preferred the constrained model to Stable Diffusion v2")


def _cell(value: Any) -> Any:
    """A CSV cell that no spreadsheet takes for a formula: what platforms send came from strangers."""
    text = "" if value is None else str(value)
    text = f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n\r') else text
