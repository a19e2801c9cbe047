"""A thousand prompts in ten languages."""
# ruff: noqa: RUF001 - letters of other alphabets resemble ASCII letters

_LANGUAGES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "English": (
        "{} {}, oil on canvas.",
        ("A red apple", "the T-Rex's sunglasses", "Two don't-care cats", "a 1920s car", "My grandmother"),
        ("on a beach", "at night", "in the snow (again)", "under 3 moons", "by the sea!"),
    ),
    "German": (
        "{} {}, Ölgemälde.",
        ("Ein großer Fuchs", "die Äpfel", "das Schloß", "vier Katzen", "Der süße Bär"),
        ("am Strand", "bei Nacht", "im Schnee", "über München", "in der Wüste"),
    ),
    "French": (
        "{} {}, façon aquarelle",
        ("L'éléphant", "une pomme rouge", "Le garçon", "cinq chats", "Où est l'œuf"),
        ("à la plage", "la nuit", "dans la forêt", "à Noël", "près du château"),
    ),
    "Spanish": (
        "¡{} {}!",
        ("El niño", "una manzana roja", "Dos pingüinos", "la señora", "Qué perro"),
        ("en la playa", "de noche", "bajo la lluvia", "en el jardín", "junto al mar"),
    ),
    "Turkish": (
        "{} {}.",
        ("Kırmızı elma", "İki kedi", "Büyük gemi", "Şapkalı köpek", "ÇIĞLIK"),
        ("sahilde", "gece", "karda", "ormanda", "gün batımında"),
    ),
    "Russian": (
        "{} {}.",
        ("Красное яблоко", "Большой медведь", "две кошки", "Ёжик", "старый дом"),
        ("на пляже", "ночью", "в лесу", "под снегом", "у моря"),
    ),
    "Greek": (
        "{} {}",
        ("Ένα κόκκινο μήλο", "Η γάτα", "ο σκύλος", "Το πλοίο", "δύο ψάρια"),
        ("στην παραλία", "τη νύχτα", "στο χιόνι", "στο δάσος", "στη θάλασσα"),
    ),
    "Arabic": (
        "{} {}",
        ("تفاحة حمراء", "قطة صغيرة", "سفينة", "رجل عجوز", "كلبان"),
        ("على الشاطئ", "في الليل", "في الصحراء", "في الغابة", "على البحر"),
    ),
    "Japanese": (
        "{}、{}。",
        ("赤いりんご", "二匹の猫", "大きな船", "ｶﾀｶﾅの犬", "おじいさん"),
        ("浜辺で", "夜に", "雪の中", "森の中", "海の上"),
    ),
    "Hindi": (
        "{} {}।",
        ("लाल सेब", "दो बिल्लियाँ", "बड़ा जहाज़", "कुत्ता", "बूढ़ा आदमी"),
        ("समुद्र तट पर", "रात में", "बर्फ़ में", "जंगल में", "रेगिस्तान में"),
    ),
}
#: Templates of whitespace, punctuation, emoji and markup around a prompt.
_FORMS = ("{}", "  {}\n\tplease ", "{} 🦊🏖️ #1 — e\u0301 \ufb01n", "({}), 8k:1.2 <b>&amp; it's HE'LL we've'd</b> {}")

PROMPTS: tuple[str, ...] = tuple(
    form.format(*(template.format(thing, place),) * 2)
    for template, things, places in _LANGUAGES.values()
    for thing in things
    for place in places
    for form in _FORMS
)
