"""The objects that `sketch` can generate, with their names, colour variants and accessories.

Names and synonyms follow the annotations of emojibase (MIT). An object with colour variants can be drawn in each of
`art.COLOUR_VARIANTS`. An object with a face or a hand can wear or hold an accessory.
"""

from dataclasses import dataclass

#: The position (x, y) and the width of an accessory, as fractions of the side of the object's square.
Spot = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Body:
    """The spots of an object at which accessories can be attached. None: the object has no such spot."""

    #: The centre of sunglasses.
    eyes: Spot | None = None
    #: The centre of a hat's lower edge.
    head: Spot | None = None
    #: The hand; the third number is the side of the held accessory.
    hand: Spot | None = None


@dataclass(frozen=True, slots=True)
class ObjectClass:
    """A class of objects that can be drawn."""

    #: Name of the icon in the art package, which identifies the class.
    icon: str
    #: The names of the object in captions; the first is the most frequent.
    wordings: tuple[str, ...]
    #: The usual colour of an object with colour variants. None: the object has no variants.
    colour: str | None = None
    #: Whether captions can have a number before the name; False for names such as "pair of scissors" and "jeans".
    counts: bool = True
    body: Body = Body()


def _object(
    icon: str, *wordings: str, colour: str | None = None, counts: bool = True, body: Body | None = None
) -> ObjectClass:
    return ObjectClass(icon, wordings or (icon.replace("-", " "),), colour, counts, body or Body())


def _face(eyes: float, head: float, width: float = 0.66) -> Body:
    """Return the body of a face in front view. eyes, head: y of the spots; width: width of sunglasses."""
    return Body(eyes=(0.5, eyes, width), head=(0.5, head, 0.5))


_ANIMALS = (
    _object(
        "t-rex",
        "t-rex",
        "trex",
        "tyrannosaurus",
        "dinosaur",
        colour="green",
        body=Body(eyes=(0.25, 0.16, 0.38), head=(0.28, 0.1, 0.34), hand=(0.17, 0.5, 0.44)),
    ),
    _object("dog-face", "dog", "puppy", "dog face", "doggy", body=_face(0.46, 0.12)),
    _object("cat-face", "cat", "kitten", "cat face", "kitty", body=_face(0.47, 0.24)),
    _object("fox", "fox", "fox face", body=_face(0.58, 0.32, 0.56)),
    _object("panda", "panda", "panda bear", body=_face(0.46, 0.14)),
    _object("frog", "frog", "toad", "frog face", body=Body(eyes=(0.5, 0.23, 0.72))),
    _object("pig-face", "pig", "piglet", "pig face", body=_face(0.42, 0.12)),
    _object("lion", "lion", "lion face", body=_face(0.42, 0.1, 0.5)),
    _object("tiger-face", "tiger", "tiger face", body=_face(0.44, 0.12, 0.5)),
    _object("cow-face", "cow", "cow face", body=_face(0.42, 0.16, 0.5)),
    _object("monkey-face", "monkey", "ape", "monkey face", body=_face(0.44, 0.17, 0.5)),
    _object("mouse-face", "mouse", "mouse face", body=_face(0.56, 0.28, 0.5)),
    _object("rabbit-face", "rabbit", "bunny", "rabbit face", body=_face(0.58, 0.4, 0.5)),
    _object("bear", "bear", "grizzly", "brown bear", body=_face(0.44, 0.16)),
    _object("koala", "koala", "koala bear", body=_face(0.42, 0.16)),
    _object("penguin", "penguin", body=Body((0.5, 0.24, 0.46), (0.5, 0.06, 0.4), (0.14, 0.62, 0.44))),
    _object("owl", body=Body(head=(0.5, 0.1, 0.42))),
    _object("duck", "duck", "mallard"),
    _object("swan"),
    _object("flamingo"),
    _object("parrot"),
    _object("elephant"),
    _object("giraffe"),
    _object("zebra"),
    _object("camel", "camel", "dromedary"),
    _object("kangaroo"),
    _object("hedgehog"),
    _object("horse", "horse", "pony"),
    _object("unicorn"),
    _object("dragon", colour="green"),
    _object("crocodile", "crocodile", "alligator"),
    _object("turtle", "turtle", "tortoise"),
    _object("snake", "snake", "serpent", colour="green"),
    _object("octopus", colour="orange"),
    _object("crab"),
    _object("spouting-whale", "whale", "spouting whale"),
    _object("dolphin"),
    _object("shark"),
    _object("tropical-fish", "fish", "tropical fish"),
    _object("snail"),
    _object("butterfly", colour="orange"),
    _object("bug", "caterpillar", colour="green"),
    _object("honeybee", "bee", "honeybee", "bumblebee"),
    _object("lady-beetle", "ladybug", "ladybird", "beetle"),
    _object("jellyfish", colour="blue"),
)

_FOOD = (
    _object("red-apple", "apple", "red apple", colour="red"),
    _object("banana"),
    _object("strawberry"),
    _object("cherries", "cherries", "pair of cherries", counts=False),
    _object("grapes", "grapes", "bunch of grapes", counts=False),
    _object("pineapple"),
    _object("watermelon", "watermelon", "slice of watermelon", "melon"),
    _object("lemon"),
    _object("peach"),
    _object("pear", colour="green"),
    _object("kiwi-fruit", "kiwi", "kiwi fruit"),
    _object("avocado"),
    _object("tomato"),
    _object("carrot"),
    _object("ear-of-corn", "corn", "ear of corn", "maize", counts=False),
    _object("mushroom", "mushroom", "toadstool", colour="red"),
    _object("bread", "bread", "loaf of bread", "toast", counts=False),
    _object("croissant"),
    _object("pretzel"),
    _object("pancakes", "pancakes", "stack of pancakes", counts=False),
    _object("cheese-wedge", "cheese", "piece of cheese", "wedge of cheese", counts=False),
    _object("hamburger", "hamburger", "burger", "cheeseburger"),
    _object("french-fries", "french fries", "fries", counts=False),
    _object("pizza", "pizza", "slice of pizza"),
    _object("hot-dog", "hot dog", "hotdog"),
    _object("doughnut", "doughnut", "donut"),
    _object("cookie", "cookie", "biscuit"),
    _object("birthday-cake", "birthday cake", "cake"),
    _object("cupcake", "cupcake", "muffin", colour="pink"),
    _object("soft-ice-cream", "ice cream", "ice cream cone", "icecream"),
    _object("lollipop", "lollipop", "lolly"),
    _object("candy", "candy", "sweet", colour="red"),
    _object("popcorn", counts=False),
    _object("teapot", "teapot", "pot of tea", colour="red"),
    _object("hot-beverage", "coffee", "cup of coffee", "mug of coffee", counts=False),
    _object("beer-mug", "beer", "mug of beer", "glass of beer", counts=False),
)

_NATURE = (
    _object("palm-tree", "palm tree", "palm"),
    _object("evergreen-tree", "pine tree", "fir tree", "evergreen tree", "fir"),
    _object("deciduous-tree", "tree", "oak tree", "oak"),
    _object("cactus"),
    _object("sunflower"),
    _object("tulip", "tulip", "flower", colour="pink"),
    _object("rose", colour="red"),
    _object("four-leaf-clover", "clover", "four-leaf clover", "shamrock"),
    _object("maple-leaf", "maple leaf", "leaf", colour="red"),
    _object("sun", "sun", "sunshine", counts=False),
    _object("crescent-moon", "moon", "crescent moon"),
    _object("star", colour="yellow"),
    _object("rainbow"),
    _object("cloud"),
    _object("snowflake", "snowflake", "snow crystal"),
    _object("fire", "fire", "flame", "campfire"),
    _object("ringed-planet", "planet", "saturn", "ringed planet", colour="orange"),
)

_VEHICLES_AND_BUILDINGS = (
    _object("automobile", "car", "automobile", colour="red"),
    _object("ambulance"),
    _object("fire-engine", "fire engine", "fire truck"),
    _object("bus", "bus", "school bus", colour="orange"),
    _object("delivery-truck", "truck", "lorry", "delivery truck", colour="orange"),
    _object("tractor", colour="green"),
    _object("bicycle", "bicycle", "bike"),
    _object("motor-scooter", "scooter", "motor scooter", "moped", colour="red"),
    _object("locomotive", "train", "locomotive", "steam train"),
    _object("airplane", "airplane", "plane", "aeroplane", "jet"),
    _object("helicopter", "helicopter", "copter", colour="orange"),
    _object("rocket", "rocket", "spaceship", "rocket ship"),
    _object("flying-saucer", "ufo", "flying saucer"),
    _object("sailboat", "sailboat", "sailing boat", "boat", "yacht"),
    _object("ship", "ship", "cruise ship", "steamer"),
    _object("anchor", colour="blue"),
    _object("house", "house", "home", "cottage"),
    _object("castle"),
    _object("tent", colour="green"),
    _object("ferris-wheel", "ferris wheel", "big wheel"),
)

_HOUSEHOLD = (
    _object("balloon", colour="red"),
    _object("soccer-ball", "soccer ball", "football"),
    _object("basketball"),
    _object("kite"),
    _object("crown"),
    _object("top-hat", "top hat", "hat"),
    _object("umbrella", colour="purple"),
    _object("sunglasses", "sunglasses", "pair of sunglasses", "shades", counts=False),
    _object("robot", "robot", "android", body=Body((0.5, 0.42, 0.6), (0.5, 0.12, 0.5))),
    _object("snowman", "snowman", body=Body((0.5, 0.36, 0.36), None, (0.1, 0.56, 0.42))),
    _object("ghost", "ghost", "spook", body=Body((0.5, 0.34, 0.56), (0.5, 0.07, 0.42), (0.1, 0.5, 0.42))),
    _object("jack-o-lantern", "pumpkin", "jack-o-lantern"),
    _object("teddy-bear", "teddy bear", "teddy", body=Body((0.5, 0.24, 0.44), (0.5, 0.06, 0.4), (0.14, 0.52, 0.42))),
    _object("alien", "alien", "extraterrestrial", colour="green", body=Body(head=(0.5, 0.1, 0.5))),
    _object("skull", "skull", body=_face(0.46, 0.1)),
    _object("red-heart", "heart", "red heart", colour="red"),
    _object("wrapped-gift", "gift", "present", "wrapped gift", colour="yellow"),
    _object("guitar", "guitar", "electric guitar", colour="red"),
    _object("trumpet"),
    _object("drum"),
    _object("camera", "camera", "photo camera"),
    _object("television", "television", "tv", "tv set"),
    _object("telephone", "telephone", "phone", colour="red"),
    _object("alarm-clock", "alarm clock", "clock", colour="red"),
    _object("old-key", "key", "old key", colour="yellow"),
    _object("light-bulb", "light bulb", "bulb", "lamp"),
    _object("closed-book", "book", "closed book", colour="red"),
    _object("pencil", colour="orange"),
    _object("scissors", "scissors", "pair of scissors", counts=False),
    _object("hammer"),
    _object("bell", colour="yellow"),
    _object("trophy", "trophy", "cup"),
    _object("backpack", "backpack", "rucksack", colour="red"),
    _object("handbag", "handbag", "purse", colour="orange"),
    _object("t-shirt", "t-shirt", "shirt", "tshirt", colour="green"),
    _object("dress", "dress", "gown", colour="blue"),
    _object("jeans", "jeans", "trousers", "pants", colour="blue", counts=False),
    _object("running-shoe", "shoe", "running shoe", "sneaker"),
    _object("chair", colour="orange"),
    _object("globe-showing-europe-africa", "globe", "earth", "world"),
    _object("gem-stone", "diamond", "gem", "gemstone", "jewel", colour="blue"),
    _object("bomb"),
)  # fmt: skip

OBJECTS: tuple[ObjectClass, ...] = (*_ANIMALS, *_FOOD, *_NATURE, *_VEHICLES_AND_BUILDINGS, *_HOUSEHOLD)

BY_ICON = {obj.icon: obj for obj in OBJECTS}


@dataclass(frozen=True, slots=True)
class Accessory:
    """An item that an object can wear or hold."""

    icon: str
    #: The field of `Body` with the spot to which the accessory is attached.
    place: str
    #: The names of the accessory in captions, with the article.
    wordings: tuple[str, ...]
    #: The point (x, y) of the accessory that is placed on the spot, as fractions of the side of the accessory's square.
    grip: tuple[float, float]


ACCESSORIES: tuple[Accessory, ...] = (
    Accessory("sunglasses", "eyes", ("sunglasses", "a pair of sunglasses", "shades"), (0.5, 0.5)),
    Accessory("top-hat", "head", ("a top hat", "a hat"), (0.5, 0.86)),
    Accessory("crown", "head", ("a crown",), (0.5, 0.86)),
    Accessory("balloon", "hand", ("a balloon", "a red balloon"), (0.35, 0.95)),
    Accessory("tulip", "hand", ("a tulip", "a flower"), (0.5, 0.9)),
    Accessory("lollipop", "hand", ("a lollipop",), (0.9, 0.92)),
)

BY_ACCESSORY = {accessory.icon: accessory for accessory in ACCESSORIES}

_IRREGULAR = {"mouse": "mice", "fish": "fish", "leaf": "leaves", "loaf": "loaves", "cactus": "cacti",
              "jellyfish": "jellyfish", "snowman": "snowmen", "tomato": "tomatoes"}  # fmt: skip


def article(wording: str) -> str:
    """Return "an" before a name that begins with a vowel sound, and "a" before others."""
    return "an" if wording[0] in "aeiou" and not wording.startswith(("uni", "ufo")) else "a"


def plural(wording: str) -> str:
    """Return the plural of a name: "slice of pizza" -> "slices of pizza"."""
    head, of, rest = wording.partition(" of ")
    before, space, noun = head.rpartition(" ")
    if noun in _IRREGULAR:
        many = _IRREGULAR[noun]
    elif noun.endswith(("s", "x", "ch", "sh")):
        many = noun + "es"
    elif noun.endswith("y") and noun[-2] not in "aeiou":
        many = noun[:-1] + "ies"
    else:
        many = noun + "s"
    return before + space + many + of + rest
