"""Everything that the bot says, in English and Russian; nothing of it stands anywhere else.

What the workers say of a picture is English; `Words.error` puts the known sentences into the user's language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mien.errors import MienError

__all__ = ["COMMANDS", "ERRORS", "TEXTS", "Words", "words_of"]

TEXTS: Mapping[str, Mapping[str, str]] = {
    "start": {
        "en": "Hello! Send me a photo with faces, and choose what to change. Every face is done.\n\n{consent}\n\n/help",
        "ru": "Привет! Пришлите фото с лицами и выберите, что изменить. Изменю каждое лицо.\n\n{consent}\n\n/help",
    },
    "help": {
        "en": "Send a photo, then press a button. Or write a command under the photo, or in reply to one:\n\n"
        "/toon - a drawing of everybody\n/smile 1.5 - more of a smile; -1.5: less\n/age 1 - older; -1: younger\n"
        "/style - another look, or a drawing\n\n"
        "Two photos sent together as an album:\n/swap - the first one's face on the second photo\n"
        "/blend - the first face with features of the second\n"
        "/morph - from the first face to the second, as a video or in pictures\n"
        "/style - the first photo painted like the second\n\n"
        "A file (not compressed) is answered with a file. At most {max_mb} MB.\n"
        "/privacy - what happens to your photos\n/delete - delete all of it now",
        "ru": "Пришлите фото и нажмите кнопку. Или напишите команду под фото или в ответ на него:\n\n"
        "/toon - все как рисунок\n/smile 1.5 - больше улыбки; -1.5: меньше\n/age 1 - старше; -1: моложе\n"
        "/style - другой облик или рисунок\n\n"
        "Два фото одним альбомом:\n/swap - лицо с первого на втором фото\n"
        "/blend - первое лицо с чертами второго\n/morph - от первого лица ко второму: видео или картинки\n"
        "/style - первое фото в манере второго\n\n"
        "На файл (без сжатия) отвечу файлом. Не больше {max_mb} МБ.\n"
        "/privacy - что происходит с вашими фото\n/delete - удалить всё сейчас",
    },
    "privacy": {
        "en": "Your photo is fetched when you choose what to do, and deleted when the work ends. The result is deleted "
        "as soon as you have it. For a day there stays only that something was done, and when: not by whom. The log "
        "has no names and no pictures. Nothing is used for training. /delete removes what is still there.\n\n{consent}",
        "ru": "Фото загружается, когда вы выбрали действие, и удаляется, когда работа закончена. Результат удаляется "
        "сразу после доставки. На сутки остаётся лишь то, что что-то было сделано и когда, но не кем. В журнале нет ни "
        "имён, ни снимков. Для обучения ничего не используется. /delete удаляет всё оставшееся.\n\n{consent}",
    },
    "deleted": {
        "en": "Deleted. Work that was still waiting or running for you: {count}.",
        "ru": "Удалено. Работ, которые ещё ждали или шли для вас: {count}.",
    },
    "menu": {
        "en": "What shall I do? Every face is done.\n{consent}",
        "ru": "Что сделать? Изменю каждое лицо.\n{consent}",
    },
    "menu_many": {
        "en": "{count} photos. What shall I do?\n{consent}",
        "ru": "Фото: {count}. Что сделать?\n{consent}",
    },
    "how_much": {"en": "{name}: how much?", "ru": "{name}: насколько?"},
    "fetching": {"en": "Got it, fetching the photo...", "ru": "Принято, загружаю фото..."},
    "waiting": {"en": "In the queue, place {position}", "ru": "В очереди, место {position}"},
    "no_worker": {
        "en": "In the queue, place {position}. Nobody works just now; yours is kept and will be done",
        "ru": "В очереди, место {position}. Сейчас никто не работает; ваше фото сохранено и будет сделано",
    },
    "working": {"en": "Working", "ru": "Работаю"},
    "left_s": {"en": ", about {left} s", "ru": ", примерно {left} с"},
    "left_min": {"en": ", about {left} min", "ru": ", примерно {left} мин"},
    "done": {"en": "Done: {what}. Made by a machine.", "ru": "Готово: {what}. Сделано машиной."},
    "cancelled": {"en": "Cancelled. Something else?", "ru": "Отменено. Что-нибудь другое?"},
    "gone": {"en": "This work was deleted.", "ru": "Эта работа удалена."},
    "failed": {"en": "That did not work: {message}.", "ru": "Не получилось: {message}."},
    "hint": {"en": "\nWhat helps: {hint}.", "ru": "\nЧто поможет: {hint}."},
    "broken": {
        "en": "Something broke on our side. Please try again.",
        "ru": "Что-то сломалось у нас. Попробуйте ещё раз.",
    },
    "unreachable": {
        "en": "Telegram did not give me the photo. Please send it again.",
        "ru": "Telegram не отдал мне фото. Пришлите его ещё раз.",
    },
    "no_source": {
        "en": "I no longer see that photo. Please send it again.",
        "ru": "Я больше не вижу это фото. Пришлите его ещё раз.",
    },
    "busy": {"en": "That is being done already.", "ru": "Это уже делается."},
    "stopping": {"en": "Stopping...", "ru": "Останавливаю..."},
    "over": {"en": "It is over already.", "ru": "Уже закончено."},
    "too_large": {
        "en": "The file has {mb} MB; bots may fetch at most {max_mb} MB. Send it as a photo, or save it smaller.",
        "ru": "В файле {mb} МБ, а ботам доступно не больше {max_mb} МБ. Пришлите его как фото или сохраните меньше.",
    },
    "no_picture": {
        "en": "I can only do photos: JPEG, PNG, WebP, HEIC. Send one, and I'll show what I can do.",
        "ru": "Я умею только фото: JPEG, PNG, WebP, HEIC. Пришлите его, и я покажу, что умею.",
    },
    "unknown": {
        "en": "Thank you! But I understand photos and commands only: send a photo with a face, or /help.",
        "ru": "Спасибо! Но я понимаю только фото и команды: пришлите фото с лицом или /help.",
    },
    "need_photo": {
        "en": "Send the photo with /{name} written under it, or reply with /{name} to a photo.",
        "ru": "Пришлите фото с подписью /{name} или ответьте на фото командой /{name}.",
    },
    "need_two": {
        "en": "That needs two photos: send both together as an album with /{name} written under it.",
        "ru": "Нужны два фото: пришлите оба одним альбомом с подписью /{name}.",
    },
    "bad_number": {
        "en": "/{name} takes a number from {low} to {high}, say /{name} 1.5",
        "ru": "/{name} принимает число от {low} до {high}, например /{name} 1.5",
    },
    "slower": {
        "en": "Not so fast, please: at most {count} messages a minute. Try again in {left} s.",
        "ru": "Помедленнее, пожалуйста: не больше {count} сообщений в минуту. Ещё раз через {left} с.",
    },
    "private_only": {"en": "Write to me alone, please: @{name}", "ru": "Напишите мне лично: @{name}"},
    "cancel": {"en": "✖ Cancel", "ru": "✖ Отменить"},
    "back": {"en": "« Back", "ru": "« Назад"},
    "more": {"en": "Something else with this photo", "ru": "Ещё что-нибудь с этим фото"},
    "go_on": {"en": "Go on from this result", "ru": "Продолжить с результата"},
    "smile": {"en": "😊 Smile", "ru": "😊 Улыбка"},
    "age": {"en": "⏳ Age", "ru": "⏳ Возраст"},
    "yaw": {"en": "↔ Turn", "ru": "↔ Поворот"},
    "style": {"en": "🎨 Style", "ru": "🎨 Стиль"},
    "toon": {"en": "🖍 Cartoon", "ru": "🖍 Рисунок"},
    "toon_drawn": {"en": "Drawn", "ru": "Карандаш"},
    "toon_painted": {"en": "Painted", "ru": "Живопись"},
    "toon_illustration": {"en": "Illustration", "ru": "Иллюстрация"},
    "toon_comic": {"en": "Comic", "ru": "Комикс"},
    "toon_cartoon": {"en": "Cartoon", "ru": "Мультфильм"},
    "toon_anime": {"en": "Anime", "ru": "Аниме"},
    "paint": {"en": "🖌 Paint the first like the second", "ru": "🖌 Первое в манере второго"},
    "swap": {"en": "🔁 First face on the second photo", "ru": "🔁 Первое лицо на втором фото"},
    "blend": {"en": "🧬 Blend the faces", "ru": "🧬 Смешать лица"},
    "morph": {"en": "🎞 From the first face to the second", "ru": "🎞 От первого лица ко второму"},
    "look": {"en": "Look {number}", "ru": "Облик {number}"},
    "shape": {"en": "Shape of the second", "ru": "Форма второго"},
    "looks": {"en": "Colours of the second", "ru": "Краски второго"},
    "half": {"en": "Half and half", "ru": "Пополам"},
    "quarter": {"en": "A little of the second", "ru": "Немного второго"},
    "film": {"en": "As a video", "ru": "Видео"},
    "strip": {"en": "As pictures", "ru": "Картинками"},
    "most": {"en": "Mostly the second", "ru": "Больше второго"},
}
"""Name => language => text; what stands in braces is filled in."""

COMMANDS: Mapping[str, Mapping[str, str]] = {
    "toon": {"en": "everybody as a drawing", "ru": "все как рисунок"},
    "style": {
        "en": "another look, a drawing, or like a second photo",
        "ru": "другой облик, рисунок или манера второго",
    },
    "smile": {"en": "more or less of a smile", "ru": "больше или меньше улыбки"},
    "age": {"en": "older or younger", "ru": "старше или моложе"},
    "swap": {"en": "one face on another photo", "ru": "лицо на другом фото"},
    "blend": {"en": "two faces in one", "ru": "два лица в одном"},
    "morph": {"en": "from one face to another", "ru": "от одного лица к другому"},
    "help": {"en": "how to use me", "ru": "как мной пользоваться"},
    "privacy": {"en": "what happens to your photos", "ru": "что происходит с вашими фото"},
    "delete": {"en": "delete all of mine now", "ru": "удалить всё моё сейчас"},
}
"""The menu of commands."""

ERRORS: Mapping[str, str] = {
    "no face found": "на фото не видно лица",
    "the file is no picture": "файл не является изображением",
    "the file is empty": "файл пуст",
    "the file is too large": "файл слишком большой",
    "the picture is too large": "изображение слишком большое",
    "the picture cannot be decoded": "изображение не читается",
    "the picture takes too long to decode": "изображение слишком долго читается",
    "the picture needs too much memory": "изображению нужно слишком много памяти",
    "the file is damaged": "файл повреждён",
    "you cannot use this service": "этот сервис вам недоступен",
    "this picture is not changed here": "это изображение здесь не меняют",
    "the queue is full": "очередь заполнена",
    "of your pictures are in the queue already": "слишком много ваших фото уже в очереди",
    "the work took longer": "работа шла слишком долго",
    "the work broke off": "работа несколько раз обрывалась",
    "something broke on our side": "что-то сломалось у нас",
    "the queue's database": "очередь сейчас недоступна",
    "faces are done, the largest": "сделаны только самые крупные лица",
}
"""Part of an English message => the Russian sentence."""


@dataclass(frozen=True)
class Words:
    """The texts of one language."""

    lang: str

    def __call__(self, name: str, /, **values: object) -> str:
        """Return a text with its values."""
        return TEXTS[name][self.lang].format(**values)

    def message(self, message: str) -> str:
        """Put what a worker says into the language; what is not known stays out of the way in Russian."""
        if self.lang == "en":
            return message
        known = (ru for part, ru in ERRORS.items() if part in message)
        return next(known, "с этим фото так не выходит")

    def error(self, message: str, hint: str = "") -> str:
        """Say what went wrong and what helps; hints that speak of the command line are left out."""
        said = self("failed", message=self.message(message))
        is_shown = self.lang == "en" and hint and "--" not in hint and "MIEN_" not in hint and "docs/" not in hint
        return said + (self("hint", hint=hint) if is_shown else "")

    def refusal(self, err: MienError) -> str:
        """Say what an error says."""
        return self.error(err.message, err.hint)

    def left(self, left_s: float | None) -> str:
        """Say how long it still takes, roughly; nothing where nobody knows."""
        if left_s is None:
            return ""
        if left_s > 90:
            return self("left_min", left=round(left_s / 60))
        return self("left_s", left=max(5, 5 * round(left_s / 5)))


def words_of(language: str | None) -> Words:
    """Return the words for a user's IETF tag.

    >>> words_of("ru-RU").lang, words_of("de").lang, words_of(None).lang
    ('ru', 'en', 'en')
    """
    return Words("ru" if (language or "").lower().split("-")[0] == "ru" else "en")
