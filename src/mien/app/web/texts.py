"""Every word of the page, in each of its languages."""

from __future__ import annotations

from collections.abc import Mapping

from mien.app.trust.gate import CONSENT

__all__ = ["DIRECTIONS", "LANGUAGES", "TEXTS", "direction_name", "say", "style_name"]

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
    "step_photo": ("A photo", "Фото"),
    "step_photo_help": (
        "Drop one of yourself or of friends who agreed, take one, or invent a person.",
        "Добавьте свой снимок или снимок друзей, которые не против, сфотографируйтесь или придумайте человека.",
    ),
    "step_change": ("A change", "Изменение"),
    "step_change_help": (
        "Sliders for smile, age and more; a cartoon of everybody; a mix with somebody else.",
        "Ползунки для улыбки, возраста и прочего, мультик из всех, смесь с кем-то ещё.",
    ),
    "step_take": ("The picture", "Снимок"),
    "step_take_help": (
        "Compare before and after, then download. The file says that a machine changed it.",
        "Сравните до и после и скачайте. В файле записано, что его изменила машина.",
    ),
    "group_face": ("Face", "Лицо"),
    "group_drawing": ("Cartoon & paint", "Мультик и живопись"),
    "group_people": ("People", "Люди"),
    "group_more": ("More", "Ещё"),
    "busy": (
        "Something is being made already: wait for it, or press Stop.",
        "Что-то уже делается: подождите или нажмите «Остановить».",
    ),
    "resumed": ("Here is where you were.", "Вы остановились здесь."),
    "toonify": ("Cartoon", "Мультик"),
    "toonify_help": (
        "Draws every face of the photo at once, each in its place.",
        "Рисует сразу все лица на фото, каждое на своём месте.",
    ),
    "toonify_style": ("Drawn how?", "Как рисовать?"),
    "toonify_who": ("Whom?", "Кого?"),
    "everybody": ("every face", "все лица"),
    "chosen_face": ("the chosen face", "выбранное лицо"),
    "whole_picture": ("the whole picture", "всё фото"),
    "toonify_button": ("Make a cartoon", "Сделать мультик"),
    "no_styles": ("No drawing networks are installed here.", "Здесь не установлены рисующие сети."),
    "sweep": ("Styles in between", "Между стилями"),
    "sweep_help": (
        "Shows invented people drawn by blends of the face network and a drawing one, to choose a blend from.",
        "Показывает придуманных людей, нарисованных смесями обычной сети и рисующей, чтобы выбрать смесь.",
    ),
    "sweep_button": ("Draw the table", "Нарисовать таблицу"),
    "morph": ("Morph", "Превращение"),
    "morph_help": (
        "A video in which the chosen face turns into the others and back.",
        "Видео, в котором выбранное лицо превращается в других и обратно.",
    ),
    "morph_photos": ("Pictures of the others, up to three", "Снимки остальных, до трёх"),
    "morph_s": ("Seconds", "Секунд"),
    "morph_button": ("Make the video", "Сделать видео"),
    "lab": ("Report", "Отчёт"),
    "lab_help": (
        "Two to six people, one photo each: a page with everybody's projections, styles, moods, swaps, blends "
        "and morphs, with numbers. Takes some minutes.",
        "От двух до шести человек, по снимку на каждого: страница с проекциями, стилями, эмоциями, заменами, "
        "смесями и превращениями всех, с числами. Займёт несколько минут.",
    ),
    "lab_photos": ("Photos, one of each person", "Снимки, по одному на человека"),
    "lab_button": ("Make the report", "Сделать отчёт"),
    "labels": ("Sorting pairs", "Разметка пар"),
    "labels_help": (
        "Whoever trains a cartoon network sorts its pairs of photo and drawing on a page of its own: {command}.",
        "Кто обучает рисующую сеть, сортирует пары «фото — рисунок» на отдельной странице: {command}.",
    ),
    "made_morph": ("Download the video", "Скачать видео"),
    "made_sweep": ("Download the table", "Скачать таблицу"),
    "made_lab": ("Download the report (ZIP)", "Скачать отчёт (ZIP)"),
    "made_lab_help": (
        "Unpack it and open index.html in a browser.",
        "Распакуйте и откройте index.html в браузере.",
    ),
    "drag_point": ("Which point?", "Какая точка?"),
    "point_clicked": ("the one clicked", "нажатая"),
    "point_mouth_left": ("left corner of the mouth", "левый угол рта"),
    "point_mouth_right": ("right corner of the mouth", "правый угол рта"),
    "point_nose": ("nose", "нос"),
    "point_chin": ("chin", "подбородок"),
    "drag_right": ("How far to the right, % of the face", "Насколько вправо, % лица"),
    "drag_down": ("How far down, % of the face", "Насколько вниз, % лица"),
    "preview": ("how it grows", "как получается"),
    "found": (
        "Faces found: {count}. Move a slider, or make a cartoon.",
        "Найдено лиц: {count}. Подвиньте ползунок или сделайте мультик.",
    ),
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
    "express_help": (
        "Gives the chosen face an expression; the rest of it stays.",
        "Придаёт выбранному лицу выражение; остальное не меняется.",
    ),
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
        "Click a point of the face, then where it should go; or choose both below.",
        "Нажмите точку на лице, затем место, куда её сдвинуть, или выберите их ниже.",
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
STYLES: Mapping[str, tuple[str, str]] = {
    "toon-128": ("Comic", "Комикс"),
    "drawn-64": ("Drawn anew", "Рисунок заново"),
    "drawn-128": ("Drawn anew, finer", "Рисунок заново, тоньше"),
    "painted-64": ("Painting", "Живопись"),
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


def style_name(lang: str, name: str) -> str:
    """Return what a drawing network is called on the page; one that has no name there keeps its own.

    >>> style_name("ru", "toon-128"), style_name("en", "ink_student")
    ('Комикс', 'Ink student')
    """
    own = name.replace("_", " ").replace("-", " ").capitalize()
    return STYLES.get(name, (own, own))[list(LANGUAGES).index(lang)]
