"""Every word of the page, in each of its languages; what is said of an error in words that the page's visitor knows."""

from __future__ import annotations

import html
from collections.abc import Mapping

from mien.app.jobs.record import NoJobError, QueueError, QueueFullError, TimedOutError
from mien.app.trust.gate import CONSENT, BlockedError
from mien.errors import Cancelled, MienError, MissingWeightsError, NoFaceError, UnsupportedFileError, WeightsError

__all__ = ["ERRORS", "LANGUAGES", "TEXTS", "direction_name", "error_words", "say"]

LANGUAGES = {"en": "English", "ru": "Русский"}

TEXTS: Mapping[str, tuple[str, str]] = {  # English, Russian
    "tagline": ("Change faces in a photo, gently.", "Меняйте лица на фото — бережно."),
    "consent": (CONSENT["en"], CONSENT["ru"]),
    "kept": (
        "Pictures are deleted after {minutes:g} min, or at once by the button below.",
        "Снимки удаляются через {minutes:g} мин или сразу — кнопкой внизу.",
    ),
    "drop": ("Drop a photo here\nor click to choose one", "Перетащите фото сюда\nили нажмите, чтобы выбрать"),
    "photo": ("Photo", "Фото"),
    "invent": ("No photo at hand? Invent a person", "Нет фото под рукой? Придумать человека"),
    "result": ("Before and after", "До и после"),
    "faces": ("Whose face?", "Чьё лицо?"),
    "welcome": ("Put in a photo with a face.", "Добавьте фото с лицом."),
    "found": ("{count} found. Move a slider.", "Найдено лиц: {count}. Подвиньте ползунок."),
    "done": ("Done: {what}. Compare, go on, or download.", "Готово: {what}. Сравните, продолжайте или скачайте."),
    "undone": ("One step back.", "Шаг назад."),
    "first": ("This is the photo as it came.", "Это исходное фото."),
    "waits": ("In the queue: number {position}.", "В очереди: номер {position}."),
    "no_worker": (
        "Waiting for a worker; it starts in a moment.",
        "Ждём исполнителя; он вот-вот начнёт.",
    ),
    "left": ("about {seconds:.0f} s left", "осталось около {seconds:.0f} с"),
    "works": ("Working on it: {what}.", "Работаем: {what}."),
    "adjust": ("Adjust", "Черты"),
    "adjust_help": (
        "The small face follows at once; the photo, when you let go.",
        "Маленькое лицо меняется сразу, фото — когда отпустите ползунок.",
    ),
    "no_directions": (
        "This network has no directions, so there is nothing to adjust.",
        "У этой сети нет направлений, поэтому настраивать нечего.",
    ),
    "apply": ("Apply to the photo", "Применить к фото"),
    "express": ("Mood", "Эмоция"),
    "emotion": ("Expression", "Выражение"),
    "strength": ("Strength", "Сила"),
    "from_photo": ("...or as in this picture", "...или как на этом снимке"),
    "express_button": ("Give this expression", "Придать выражение"),
    "style": ("Style", "Стиль"),
    "style_help": (
        "The face takes light, colour and texture of another one.",
        "Лицо берёт свет, цвет и фактуру другого.",
    ),
    "seed": ("Number of an invented person", "Номер придуманного человека"),
    "style_photo": ("...or a picture", "...или снимок"),
    "amount": ("How much", "Насколько"),
    "keep_colour": ("Keep the colours", "Оставить цвета"),
    "style_button": ("Take the style", "Взять стиль"),
    "swap": ("Swap", "Замена"),
    "swap_help": (
        "Puts the face of another picture onto the chosen one.",
        "Переносит лицо с другого снимка на выбранное.",
    ),
    "swap_photo": ("Whose face to put on", "Чьё лицо перенести"),
    "swap_button": ("Swap the face", "Заменить лицо"),
    "blend": ("Blend", "Смесь"),
    "blend_help": (
        "A new person from several, by weights; the first is the chosen face.",
        "Новый человек из нескольких, по весам; первый — выбранное лицо.",
    ),
    "blend_photos": ("Pictures of others", "Снимки других людей"),
    "you": ("chosen", "выбранное"),
    "person": ("person {number}", "человек {number}"),
    "blend_button": ("Blend", "Смешать"),
    "drag": ("Drag", "Сдвиг"),
    "drag_help": (
        "Click a point of the face, then where it should go.",
        "Нажмите точку на лице, затем место, куда её сдвинуть.",
    ),
    "drag_face": ("Face", "Лицо"),
    "drag_button": ("Move it", "Сдвинуть"),
    "drag_none": ("Click two places of the face first.", "Сначала нажмите два места на лице."),
    "stylize": ("Paint", "Живопись"),
    "stylize_help": (
        "Paints the whole photo like a picture. Takes a minute or so.",
        "Рисует всё фото в манере картины. Займёт около минуты.",
    ),
    "stylize_photo": ("Like this picture", "Как на этой картине"),
    "spare": ("Spare the faces", "Беречь лица"),
    "stylize_button": ("Paint it", "Нарисовать"),
    "replay": ("Repeat", "Повтор"),
    "replay_help": (
        "Does the steps of a recipe that you downloaded to this face.",
        "Повторяет на этом лице шаги скачанного рецепта.",
    ),
    "replay_file": ("Recipe (.json)", "Рецепт (.json)"),
    "replay_button": ("Repeat the recipe", "Повторить рецепт"),
    "undo": ("Undo", "Отменить"),
    "reset": ("Start again", "Сначала"),
    "cancel": ("Stop", "Остановить"),
    "new": ("New photo", "Новое фото"),
    "download": ("Download", "Скачать"),
    "recipe": ("Recipe", "Рецепт"),
    "delete": ("Delete my pictures", "Удалить мои снимки"),
    "deleted": ("Everything of yours is deleted.", "Все ваши данные удалены."),
    "history": ("History", "История"),
    "open": ("photo", "фото"),
    "before": ("before", "до"),
    "after": ("after", "после"),
    "need_photo": ("There is no photo yet", "Фото ещё нет"),
    "need_photo_hint": ("put one in on the left", "добавьте его слева"),
    "need_picture": ("A picture is missing", "Не хватает снимка"),
    "need_picture_hint": ("drop one into the field of this tool", "добавьте его в поле этого инструмента"),
    "broken": ("Something broke on our side", "У нас что-то сломалось"),
    "broken_hint": (
        "try again; the operator finds it as {number}",
        "попробуйте ещё раз; номер для оператора: {number}",
    ),
    "happiness": ("joy", "радость"),
    "surprise": ("surprise", "удивление"),
    "anger": ("anger", "гнев"),
    "api": ("For programs", "Для программ"),
    "machine": (
        "Results say in the file that a machine changed them.",
        "В файле результата записано, что его изменила машина.",
    ),
}

DIRECTIONS: Mapping[str, tuple[str, str]] = {
    "smile": ("Smile", "Улыбка"),
    "age": ("Age", "Возраст"),
    "yaw": ("Turn", "Поворот"),
    "pitch": ("Nod", "Наклон"),
    "roll": ("Tilt", "Крен"),
    "mouth": ("Mouth open", "Открытый рот"),
    "mouth_open": ("Mouth open", "Открытый рот"),
    "eyes": ("Eyes open", "Открытые глаза"),
    "eyes_open": ("Eyes open", "Открытые глаза"),
    "surprise": ("Surprise", "Удивление"),
    "anger": ("Anger", "Гнев"),
    "gender": ("Gender", "Пол"),
    "glasses": ("Glasses", "Очки"),
    "beard": ("Beard", "Борода"),
    "hair": ("Hair", "Волосы"),
    "light": ("Light", "Свет"),
    "eyes_closed": ("Eyes closed", "Закрытые глаза"),
    "dark_hair": ("Dark hair", "Тёмные волосы"),
    "long_hair": ("Long hair", "Длинные волосы"),
    "bald": ("Bald", "Лысина"),
    "hair_dark": ("Dark hair", "Тёмные волосы"),
    "hair_long": ("Long hair", "Длинные волосы"),
}

ERRORS: Mapping[type[MienError], tuple[str, str]] = {  # Russian words and hint; English ones are the error's own
    NoFaceError: ("На снимке не найдено лицо", "возьмите фото крупнее или анфас"),
    BlockedError: ("Этот снимок здесь не обрабатывается", "спросите владельца сервиса"),
    UnsupportedFileError: ("Этот файл не читается как снимок", "пришлите JPEG, PNG, WebP или HEIC поменьше"),
    QueueFullError: ("Очередь заполнена", "попробуйте чуть позже"),
    QueueError: ("Очередь сейчас недоступна", "попробуйте чуть позже"),
    NoJobError: ("Такого задания больше нет", "отправьте снимок ещё раз"),
    TimedOutError: ("Работа заняла слишком много времени", "возьмите снимок поменьше"),
    MissingWeightsError: ("Нет файла нейросети", "сообщите владельцу сервиса"),
    WeightsError: ("Файлы нейросети не подходят друг к другу", "сообщите владельцу сервиса"),
    Cancelled: ("Остановлено", ""),
}


def say(lang: str, key: str, **values: object) -> str:
    """Return a text of the page; `values` fill its places.

    >>> say("en", "undo"), say("ru", "undo")
    ('Undo', 'Отменить')
    """
    return TEXTS[key][list(LANGUAGES).index(lang)].format(**values)


def direction_name(lang: str, name: str) -> str:
    """Return what a direction is called on the page; one that has no name there keeps its own.

    >>> direction_name("ru", "smile"), direction_name("en", "sefa_3")
    ('Улыбка', 'Sefa 3')
    """
    own = name.replace("_", " ").capitalize()
    return DIRECTIONS.get(name, (own, own))[list(LANGUAGES).index(lang)]


def error_words(lang: str, err: MienError) -> tuple[str, str]:
    """Return what happened and what to do, as HTML-safe text."""
    message, hint = err.message, err.hint
    if lang == "ru":
        message, hint = next((words for kind, words in ERRORS.items() if isinstance(err, kind)), (message, hint))
    return html.escape(message[:1].upper() + message[1:]), html.escape(hint)
