"""Every text in every language; errors in the visitor's."""

from __future__ import annotations

import re
import string

import pytest

from mien.app.web.faults import CLASSES, NOTES, SENTENCES, error_words, job_words, note_words
from mien.app.web.texts import DIRECTIONS, LANGUAGES, STYLES, TEXTS
from mien.errors import InputError, NoFaceError


@pytest.mark.parametrize("texts", [TEXTS, DIRECTIONS, STYLES], ids=["texts", "directions", "styles"])
def test_texts_are_complete_in_every_language(texts: dict[str, tuple[str, ...]]) -> None:
    for key, said in texts.items():
        assert len(said) == len(LANGUAGES) and all(said), key
        fields = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in said]
        assert fields[0] == fields[1], key
        assert any("а" <= letter <= "я" for letter in said[1].lower()), key


def is_russian(text: str) -> bool:
    return any("а" <= letter <= "я" for letter in text.lower())


def test_every_class_of_error_has_russian_words() -> None:
    for table in (CLASSES, SENTENCES):
        for key, (words, hint) in table.items():
            assert is_russian(words) and (is_russian(hint) or key == "Cancelled"), key
            assert words.count("{") <= re.compile(key).groups, key


@pytest.mark.parametrize(
    ("err", "words"),
    [
        (NoFaceError("no face found in the photo"), "На снимке не найдено лицо"),
        (NoFaceError("the photo shows 2 faces, none has number 7"), "Такого лица на снимке нет"),
        (InputError("12 pictures are too many"), "Слишком много снимков: 12"),
        (InputError("recipe: version is unknown"), "Это не рецепт"),
        (InputError("something that nobody thought of"), "Так не получится"),
    ],
)
def test_errors_are_russian_on_the_russian_page(err: InputError, words: str) -> None:
    found = error_words("ru", err)
    assert found[0].startswith(words) and is_russian(found[1])
    assert error_words("en", err)[0].lower() == err.message


def test_a_jobs_error_is_told_by_its_class() -> None:
    assert job_words("ru", "NoFaceError", "no face", "")[0] == CLASSES["NoFaceError"][0]
    assert job_words("ru", "TimedOutError", "the work took longer than 600 s", "")[0] == "Работа заняла больше 600 с"
    assert job_words("ru", "NobodyKnowsError", "what", "")[0] == CLASSES["MienError"][0]
    assert job_words("en", "NoFaceError", "no <face>", "try & try") == ("No &lt;face&gt;", "try &amp; try")


def test_notes_are_russian_too() -> None:
    assert all(is_russian(words) for words in NOTES.values())
    assert note_words("en", "1 of 2 faces are done, the largest") == "1 of 2 faces are done, the largest"
    assert note_words("ru", "1 of 2 faces are done, the largest") == "сделаны самые крупные лица: 1 из 2"
