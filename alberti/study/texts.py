"""The words that raters read: Markdown and a few labels in ``texts/``, which may be edited and translated."""

from pathlib import Path
from typing import Any

from alberti.errors import DataError
from alberti.files import read_json, write_json, write_text

FOLDER = "texts"
PAGES = ("consent", "instructions", "thanks")

CONSENT = """\
# A study of pictures

You will see pairs of pictures and say which of the two you prefer in one respect. It takes about {minutes} minutes.

- Taking part is voluntary. You may stop at any time, and take your answers back, without giving a reason.
- We store your answers, how long each took, the size of your window and, if a platform sent you here, the number by which it
  knows you, which is used for paying you and for nothing else. No names, no cookies but one that remembers where you were.
- There are no known risks.

*{placeholder}: who runs it, whom to write to, which ethics board approved it, how long answers are kept.*
"""
PLACEHOLDER = "Before the study starts, put here"
"""What a consent text that nobody has edited still says."""
INSTRUCTIONS = """\
# How it works

Two pictures appear side by side, or one above the other on a phone. Choose one of them:

- click or tap the picture, or
- press **F** or **←** for the left (upper) one, **J** or **→** for the right (lower) one.

There is often no right answer: go by your first impression. You need not hurry, but you need not think for long either. A few
pairs are for practice. You can reload the page, or come back later in the same browser, and go on where you were.
"""
THANKS = """\
# Thank you

That was the last pair. Your answers are saved.
"""
INTERFACE = {
    "agree": "I have read this, I am at least 18 years old, and I want to take part",
    "begin": "Begin",
    "must_agree": "Please tick the box if you want to take part.",
    "next": "Go on",
    "part": "Part {number} of {of}",
    "practice": "Practice",
    "progress": "Pair {done} of {total}",
    "first": "Left picture",
    "second": "Right picture",
    "upper": "Upper picture",
    "lower": "Lower picture",
    "right_answer": "Right: that one is straight.",
    "wrong_answer": "Not quite: the other one is straight, in this one the lines are bent.",
    "loading": "The pictures are loading",
    "saving": "Your answer could not be sent yet. Trying again; please keep this page open.",
    "failed": "Something went wrong. Please reload the page.",
    "too_small": "This window is too small for the pictures. Please make it larger, or turn your phone.",
    "withdraw": "Stop and take back my answers",
    "withdraw_sure": "Take back all your answers? This cannot be undone.",
    "withdrawn": "Your answers are taken back and will not be used. You can close this page.",
    "code": "Your completion code",
    "return": "Back to the platform",
    "already": "You have begun this study in another browser, or on another device. Please go on there.",
    "preview": "This is a preview. Accept the task first, then open the study again.",
    "no_script": "This study needs JavaScript.",
    "gone": "Your place was not found. Please start again with the link that you were given.",
    "download": "Save your answers as a file",
    "send_file": "Please send this file to whoever invited you.",
}
_SECONDS_A_PAIR = 4


def write_texts(folder: Path, trials: int) -> None:
    """Write the default texts into a study folder."""
    minutes = max(2, round(trials * _SECONDS_A_PAIR / 60) + 1)
    for name, text in zip(PAGES, (CONSENT.format(minutes=minutes, placeholder=PLACEHOLDER), INSTRUCTIONS, THANKS), strict=True):
        write_text(folder / FOLDER / f"{name}.md", text)
    write_json(folder / FOLDER / "interface.json", INTERFACE)


def read_texts(folder: Path) -> dict[str, Any]:
    """The pages as HTML (``consent``, ``instructions``, ``thanks``) and the labels (``interface``), missing ones by default.

    Raises:
        DataError: a page is missing or not UTF-8, or a label is unknown or no text.
    """
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False})
    texts: dict[str, Any] = {name: markdown.render(_read(folder / FOLDER / f"{name}.md")) for name in PAGES}
    path = folder / FOLDER / "interface.json"
    labels = read_json(path)
    unknown = [name for name in labels if name not in INTERFACE] if isinstance(labels, dict) else ["(not an object)"]
    if unknown or not all(isinstance(label, str) for label in labels.values()):
        raise DataError(
            f"{path}: expected an object of texts with names out of {', '.join(INTERFACE)}; got {unknown or labels}"
        )
    return {**texts, "interface": {**INTERFACE, **labels}}


def is_unedited(folder: Path) -> bool:
    """Whether the consent text still asks to be completed."""
    return PLACEHOLDER in _read(folder / FOLDER / "consent.md")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; the study's texts are {', '.join(f'{name}.md' for name in PAGES)}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error})") from None
