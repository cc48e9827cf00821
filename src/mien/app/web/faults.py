"""What is said of an error, or of a result, to a visitor of the page: English as it is, Russian by a table.

The queue keeps of an error its class and its English words. Words that a visitor can bring about have a line in
`SENTENCES`, by a pattern; all others are told by their class in `CLASSES`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from mien.errors import MienError

__all__ = ["CLASSES", "SENTENCES", "error_words", "job_words", "note_words"]

SENTENCES: Mapping[str, tuple[str, str]] = {  # pattern of the English message => Russian message and hint
    r"there is no photo yet": ("Фото ещё нет", "добавьте его"),
    r"a picture is missing": ("Не хватает снимка", "добавьте его в поле этого инструмента"),
    r"the photo shows no face any more": ("На снимке больше нет лица", "вернитесь на шаг назад"),
    r"nobody has a weight": ("Ни у кого нет веса", "подвиньте один из ползунков"),
    r"nothing was done to this face yet": ("С этим лицом ещё ничего не сделано", "сначала подвиньте ползунок"),
    r"the recipe was made with another network": ("Рецепт сделан с другой нейросетью", "повторить его здесь нельзя"),
    r"this recipe is no change of one face": ("Этот рецепт не меняет одно лицо", "используйте mien replay"),
    r".*\brecipe\b.*": ("Это не рецепт, или он повреждён", "возьмите файл, скачанный здесь кнопкой «Рецепт»"),
    r".* has no face \d+|.*none has number \d+": ("Такого лица на снимке нет", "выберите одно из показанных"),
    r"(\d+) pictures are too many": ("Слишком много снимков: {0}", "отправьте меньше"),
    r"(\d+) pictures for .*": ("Снимков не столько, сколько нужно: {0}", "добавьте или уберите лишние"),
    r"(\d+) of your pictures are in the queue already": ("В очереди уже столько ваших снимков: {0}", "подождите один"),
    r"the queue is full: (\d+) pictures wait": ("Очередь заполнена, ждут снимков: {0}", "попробуйте чуть позже"),
    r"(\S+) draws faces only": ("Этот стиль рисует только лица", "выберите лица вместо всего фото"),
    r"no style named .*|no generator named .*": ("Такого стиля здесь нет", "выберите из списка"),
    r".* shows nobody's face": ("Ни на одном снимке не найдено лицо", "возьмите фото крупнее или анфас"),
    r"the work took longer than ([\d.]+) s": ("Работа заняла больше {0} с", "возьмите снимок поменьше"),
    r"something broke on our side": ("У нас что-то сломалось", "попробуйте ещё раз чуть позже"),
    r"this needs one picture at least": ("Нужен хотя бы один снимок", "добавьте его"),
}

CLASSES: Mapping[str, tuple[str, str]] = {  # class => Russian message and hint
    "NoFaceError": ("На снимке не найдено лицо", "возьмите фото крупнее или анфас"),
    "BlockedError": ("Этот снимок здесь не обрабатывается", "спросите владельца сервиса"),
    "UnsupportedFileError": ("Этот файл не читается как снимок", "пришлите JPEG, PNG, WebP или HEIC поменьше"),
    "QueueFullError": ("Очередь заполнена", "попробуйте чуть позже"),
    "QueueError": ("Очередь сейчас недоступна", "попробуйте чуть позже"),
    "NoJobError": ("Такого задания больше нет", "отправьте снимок ещё раз"),
    "TimedOutError": ("Работа заняла слишком много времени", "возьмите снимок поменьше"),
    "MissingWeightsError": ("Нет файла нейросети", "сообщите владельцу сервиса"),
    "WeightsError": ("Файлы нейросети не подходят друг к другу", "сообщите владельцу сервиса"),
    "MissingExtraError": ("На сервере не хватает программы для этого", "сообщите владельцу сервиса"),
    "Cancelled": ("Остановлено", ""),
    "InputError": ("Так не получится", "попробуйте другие настройки или другой снимок"),
    "MienError": ("Не получилось", "попробуйте ещё раз"),
}

NOTES: Mapping[str, str] = {
    r"(\d+) of (\d+) faces are done, the largest": "сделаны самые крупные лица: {0} из {1}",
}


def _sentence(message: str) -> tuple[str, str] | None:
    for pattern, (words, hint) in SENTENCES.items():
        if (match := re.fullmatch(pattern, message)) is not None:
            return words.format(*match.groups()), hint
    return None


def _classes_of(name: str) -> list[str]:
    """The class of that name and those above it, the nearest first."""
    found: list[type] = [MienError]
    while found:
        kind = found.pop()
        if kind.__name__ == name:
            return [one.__name__ for one in kind.__mro__]
        found += kind.__subclasses__()
    return []


def job_words(lang: str, error: str, message: str, hint: str) -> tuple[str, str]:
    """Return what happened and what to do, as HTML-safe text.

    Args:
        lang: of the visitor.
        error: class of the error.
        message: its English words.
        hint: likewise.
    """
    if lang == "ru":
        kinds = (CLASSES[name] for name in _classes_of(error) if name in CLASSES)
        message, hint = _sentence(message) or next(kinds, CLASSES["MienError"])
    return html.escape(message[:1].upper() + message[1:]), html.escape(hint)


def error_words(lang: str, err: MienError) -> tuple[str, str]:
    """Return the same of an error."""
    return job_words(lang, type(err).__name__, err.message, err.hint)


def note_words(lang: str, note: str) -> str:
    """Return what is said of a result, in the visitor's language.

    >>> note_words("ru", "3 of 5 faces are done, the largest")
    'сделаны самые крупные лица: 3 из 5'
    """
    for pattern, words in NOTES.items():
        if lang == "ru" and (match := re.fullmatch(pattern, note)) is not None:
            return words.format(*match.groups())
    return note
